// Computes until it is stopped.
import { serve, sleep } from './proof.js';

export default serve(async ({ url, line, respond }) => {
  switch (url.pathname) {
    case '/loop':
      for (;;);
    case '/allocations':
      for (let kept; ; ) kept = new Array(1000).fill(kept?.length);
    case '/natives':
      for (const numbers = new Array(100_000).fill(1); ; ) numbers.fill(2);
    case '/expression':
      return /^(a+)+$/.test('a'.repeat(64) + 'b');
    case '/promises': {
      const again = () => Promise.resolve().then(again);
      await again();
      break;
    }
    case '/after-a-pause':
      await sleep(1);
      for (;;);
  }
  return respond(line);
});
