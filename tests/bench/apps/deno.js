// deno run deno.js PORT WORKLOAD: the same module as the others, behind Deno's own server.
const [port, workload] = Deno.args;
const app = (await import(`./${workload}.js`)).default;
Deno.serve({ port: Number(port), hostname: "127.0.0.1" }, (request) => app.fetch(request));
