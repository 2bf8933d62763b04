// The same task on Node.js with the AWS SDK for JavaScript: one record for each event, 500 a request, what failed once more.
// No envelope, no queue, no account of losses.
import http from "node:http";
import path from "node:path";
import { KinesisClient, PutRecordsCommand } from "@aws-sdk/client-kinesis";
import { NodeHttpHandler } from "@smithy/node-http-handler";

const api = `http://${process.env.AWS_LAMBDA_RUNTIME_API}`;
const port = Number(process.env.KINESIS_TELEMETRY_PORT);
const StreamName = process.env.KINESIS_TELEMETRY_STREAM;
// The simulator speaks HTTP/1.1 only; the SDK's own choice for Kinesis is HTTP/2.
const kinesis = new KinesisClient({ requestHandler: new NodeHttpHandler() });

async function putAll(events) {
  for (let first = 0; first < events.length; first += 500) {
    const some = events.slice(first, first + 500);
    const Records = some.map((event) => ({ Data: Buffer.from(JSON.stringify(event)), PartitionKey: "peer" }));
    const answer = await kinesis.send(new PutRecordsCommand({ StreamName, Records }));
    if (answer.FailedRecordCount > 0) {
      const failed = Records.filter((_, index) => answer.Records[index].ErrorCode);
      await kinesis.send(new PutRecordsCommand({ StreamName, Records: failed }));
    }
  }
}

function listen() {
  const server = http.createServer((request, response) => {
    const pieces = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", async () => {
      try {
        await putAll(JSON.parse(Buffer.concat(pieces)));
      } catch (error) {
        console.error(error.message);
      }
      response.end();
    });
  });
  return new Promise((resolve) => server.listen(port, "0.0.0.0", resolve));
}

async function call(method, target, headers, body) {
  const answer = await fetch(`${api}${target}`, { method, headers, body: body && JSON.stringify(body), signal: null });
  return { headers: answer.headers, body: await answer.text() };
}

const registered = await call(
  "POST",
  "/2020-01-01/extension/register",
  { "Lambda-Extension-Name": path.basename(process.env.PEER_NAME ?? process.argv[1]) },
  { events: ["INVOKE", "SHUTDOWN"] },
);
const id = { "Lambda-Extension-Identifier": registered.headers.get("lambda-extension-identifier") };
await listen();
await call(
  "PUT",
  "/2022-07-01/telemetry",
  { ...id, "Content-Type": "application/json" },
  {
    schemaVersion: "2022-12-13",
    types: ["platform", "function"],
    buffering: { maxItems: 10000, maxBytes: 1048576, timeoutMs: 25 },
    destination: { protocol: "HTTP", URI: `http://sandbox.localdomain:${port}` },
  },
);
for (;;) {
  const next = await call("GET", "/2020-01-01/extension/event/next", id);
  if (JSON.parse(next.body).eventType === "SHUTDOWN") process.exit(0);
}
