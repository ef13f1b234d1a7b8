// Fails in each way that a handler can.
import { serve, sleep } from './proof.js';

export default serve(async ({ env, url, line, respond }) => {
  switch (url.pathname) {
    case '/throw':
      throw new Error(`of ${env.NAME}: ${env.SECRET}`);
    case '/reject':
      await sleep(1);
      return Promise.reject(new TypeError(env.SECRET));
    case '/nothing':
      return undefined;
    case '/breaks-off':
      return respond(
        new ReadableStream({
          async start(controller) {
            controller.enqueue(new TextEncoder().encode(line));
            await sleep(5);
            controller.error(new Error(env.SECRET));
          },
        }),
      );
  }
  // A rejection that nobody handles is only logged.
  Promise.reject(new Error('not handled'));
  return respond(line);
});
