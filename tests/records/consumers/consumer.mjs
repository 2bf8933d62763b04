import { Decoder } from "./kinesis-telemetry.mjs"; // scripts/decoder/kinesis-telemetry.mjs, beside this file

const decoder = new Decoder(); // remembers 100,000 ids; in production: a table with a time to live, or an idempotent write

export const handler = async (event) => {
  for (const telemetry of decoder.lambdaEvent(event)) {
    console.log(telemetry.time, telemetry.type, telemetry.requestId, telemetry.record);
  }
};
