// Sums up what is sent, or answers without reading it.
import { fnv, serve } from './proof.js';

export default serve(async ({ request, url, line, respond }) => {
  if (url.pathname === '/unread') return respond(line);
  let count = 0;
  let hash;
  for await (const piece of request.body ?? []) {
    count += piece.length;
    hash = fnv(piece, hash);
  }
  return respond(`${line}${count} ${hash ?? fnv([])}`);
});
