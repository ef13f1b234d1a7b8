// What all tenants of the soak share: each answer proves whose it is and which request it answers.
import CODE from './version.js';

const encoder = new TextEncoder();

/**
 * A handler whose answers carry the proof. `answer` gets request, env, ctx, url, nonce, and `respond(body)`, which adds
 * the proof to a response.
 */
export function serve(answer) {
  return {
    async fetch(request, env, ctx) {
      const url = new URL(request.url);
      const nonce = request.headers.get('x-nonce');
      // Globals and prototypes are an isolate's own: what another tenant left there would show.
      globalThis.owner ??= env.SECRET;
      Object.prototype.inherited ??= env.SECRET;
      const proof = [env.NAME, env.SECRET, env.VERSION, CODE, globalThis.owner, {}.inherited, nonce].join(' ');
      const respond = (body, status = 200) => new Response(body, { status, headers: { 'x-proof': proof } });
      // The head comes at once, the body when the caller has ended its own: for counting requests under way.
      if (url.pathname === '/hold') return respond(request.body);
      const line = `${env.NAME} ${env.SECRET} ${nonce}\n`;
      return answer({ request, env, ctx, url, nonce, line, respond });
    },
  };
}

/** FNV-1a, 32 bits; `hash` goes on with an earlier one. */
export function fnv(bytes, hash = 0x811c9dc5) {
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/** Pieces of `size` bytes in all, which nobody can know without the text. `size` is a multiple of 4. */
export function* generated(text, size, piece) {
  let state = fnv(encoder.encode(text)) || 1;
  for (let left = size / 4; left > 0; ) {
    const words = new Uint32Array(Math.min(left, piece / 4));
    for (let index = 0; index < words.length; index++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      words[index] = state;
    }
    left -= words.length;
    yield new Uint8Array(words.buffer);
  }
}

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
