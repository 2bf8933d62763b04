import { gunzipSync } from "node:zlib";

const seen = new Set(); // in production: a table with a time to live, or the key of an idempotent write

export const handler = async (event) => {
  for (const { kinesis } of event.Records) { // RECORD=kpl: take them apart with the package aws-kinesis-agg first
    let data = Buffer.from(kinesis.data, "base64");
    if (data[0] === 0x1f && data[1] === 0x8b) data = gunzipSync(data);
    for (const telemetry of data.toString().split("\n").filter(Boolean).map((line) => JSON.parse(line))) {
      if (seen.has(telemetry.eventId)) continue;
      seen.add(telemetry.eventId);
      console.log(telemetry.time, telemetry.type, telemetry.requestId, telemetry.record);
    }
  }
};
