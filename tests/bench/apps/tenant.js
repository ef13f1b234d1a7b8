export default {
  fetch(request, env) {
    return new Response(`hello ${env.NAME}`);
  },
};
