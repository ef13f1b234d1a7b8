const chunk = new Uint8Array(16384).fill(97);

export default {
  fetch() {
    let left = 4;
    const body = new ReadableStream({
      pull(controller) {
        if (left-- > 0) controller.enqueue(chunk);
        else controller.close();
      },
    });
    return new Response(body);
  },
};
