// node node.mjs PORT WORKLOAD: the same answers with node:http, as one writes them for Node.
import { createServer } from "node:http";

const [port, workload] = process.argv.slice(2);
const chunk = Buffer.alloc(16384, "a");
const handlers = {
  hello(request, response) {
    response.writeHead(200, { "content-type": "text/plain;charset=UTF-8" });
    response.end("hello world");
  },
  echo(request, response) {
    const pieces = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", () => {
      const value = JSON.parse(Buffer.concat(pieces).toString());
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify(value));
    });
  },
  stream(request, response) {
    response.writeHead(200);
    for (let left = 4; left > 0; left--) response.write(chunk);
    response.end();
  },
};
createServer(handlers[workload]).listen(Number(port), "127.0.0.1");
