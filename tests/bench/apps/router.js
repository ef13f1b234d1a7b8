// workerd has no router of its own: this one passes /fn/default/NAME/ to the service NAME.
export default {
  fetch(request, env) {
    return env[request.url.split("/", 6)[5]].fetch(request);
  },
};
