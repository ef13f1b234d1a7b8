let calls = 0;
export default {
  fetch: (request, env) => new Response(`hello ${env.NAME} ${++calls}`),
};
