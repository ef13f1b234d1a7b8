// Never ends.
import { serve } from './proof.js';

export default serve(({ url, line, respond }) => {
  if (url.pathname === '/never') return new Promise(() => {});
  return respond(
    new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(line));
      },
    }),
  );
});
