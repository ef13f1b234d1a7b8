// A long answer in pieces, some after a pause.
import { generated, serve, sleep } from './proof.js';

export default serve(({ url, line, respond }) => {
  const number = (name) => Number(url.searchParams.get(name));
  const pieces = generated(line, number('size'), number('piece'));
  const pauses = number('pauses');
  let count = 0;
  let head = new TextEncoder().encode(line);
  return respond(
    new ReadableStream(
      {
        async pull(controller) {
          if (head) {
            controller.enqueue(head);
            head = undefined;
            return;
          }
          if (pauses && ++count % pauses === 0) await sleep(1);
          const { value, done } = pieces.next();
          if (done) controller.close();
          else controller.enqueue(value);
        },
      },
      { highWaterMark: 0 },
    ),
  );
});
