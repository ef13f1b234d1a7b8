// Answers first and leaves a note at another server afterwards.
import { serve, sleep } from './proof.js';

export default serve(({ env, ctx, nonce, line, respond }) => {
  const note = async () => {
    await sleep(5);
    const headers = { 'x-tenant': env.NAME, 'x-secret': env.SECRET, 'x-nonce': nonce };
    await fetch(`${env.UPSTREAM}/note`, { method: 'POST', headers });
  };
  ctx.waitUntil(note());
  return respond(line);
});
