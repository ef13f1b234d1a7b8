// Takes memory until it is stopped.
import { serve } from './proof.js';

export default serve(({ url, line, respond }) => {
  const kept = [];
  switch (url.pathname) {
    case '/arrays':
      for (;;) kept.push(new Array(1000).fill(kept.length));
    case '/objects':
      for (;;) kept.push({ index: kept.length, text: `text ${kept.length}` });
    case '/strings':
      for (;;) kept.push(`${kept.length}`.repeat(1000).toUpperCase());
    case '/buffers':
      for (;;) kept.push(new ArrayBuffer(1 << 20));
  }
  return respond(line);
});
