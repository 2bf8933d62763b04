/**
 * Takes the Kinesis records of the telemetry extension apart into events, in all of its forms: lines, event, kpl; gzip or not.
 *
 * Takes the records of a CloudWatch Logs subscription, too. Needs Node.js 20 or newer and nothing else: copy this file beside
 * your function.
 *
 *     const decoder = new Decoder();
 *     for (const telemetry of decoder.lambdaEvent(event)) console.log(telemetry.time, telemetry.type, telemetry.record);
 */
import { createHash } from 'node:crypto';
import { gunzipSync } from 'node:zlib';

const AGGREGATE = Buffer.from([0xf3, 0x89, 0x9a, 0xc2]);
// A record of Kinesis has 10 MiB at most; what unpacks to more than this is no telemetry.
const MOST_BYTES = 64 * 1024 * 1024;

/** Gives each event once: the delivery is at least once, and `eventId` tells a repeat. */
export class Decoder {
  #seen = new Set();
  #remember;
  repeats = 0;
  strangers = 0;

  /** `remember`: how many event ids to keep. What comes again later than that is not seen as a repeat. */
  constructor(remember = 100_000) {
    this.#remember = remember;
  }

  /** The new events in what Lambda hands to a function on the stream, or on a subscription of CloudWatch Logs. */
  *lambdaEvent(event) {
    if (event.awslogs) yield* this.events(Buffer.from(event.awslogs.data, 'base64'));
    for (const { kinesis } of event.Records ?? []) yield* this.events(Buffer.from(kinesis.data, 'base64'));
  }

  /** The new events in the data of one Kinesis record. What is no event is counted in `strangers`. */
  *events(data) {
    for (const event of decode(data)) {
      if (event === null) this.strangers += 1;
      else if (this.#seen.has(event.eventId)) this.repeats += 1;
      else {
        yield event;
        // Only now: if it could not be handled, Lambda hands the batch over again, and it must not be left out.
        this.#note(event.eventId);
      }
    }
  }

  #note(eventId) {
    if (eventId !== undefined) this.#seen.add(eventId);
    // A set keeps the order in which things were added.
    if (this.#seen.size > this.#remember) this.#seen.delete(this.#seen.values().next().value);
  }
}

/** Each event in the data of one Kinesis record, repeats included; `null` for what is none. */
export function* decode(data) {
  for (const record of deaggregate(data)) {
    let text = record;
    try {
      if (record[0] === 0x1f && record[1] === 0x8b) text = gunzipSync(record, { maxOutputLength: MOST_BYTES });
    } catch {
      yield null;
      continue;
    }
    for (const line of text.toString().split('\n')) if (line) yield* eventsOf(line);
  }
}

/** The data of each record in an aggregate of the KPL; or the data as it is. */
export function deaggregate(data) {
  const body = data.subarray(AGGREGATE.length, -16);
  const isAggregate = data.subarray(0, AGGREGATE.length).equals(AGGREGATE);
  if (!isAggregate || !createHash('md5').update(body).digest().equals(data.subarray(-16))) return [data];
  const inside = (message, wanted) => [...fields(message)].filter(([number]) => number === wanted).map(([, value]) => value);
  try {
    return inside(body, 3).flatMap((record) => inside(record, 3));
  } catch {
    return [data];
  }
}

/** [number, value] for each field of a protobuf message: an integer, or bytes. */
function* fields(message) {
  let at = 0;
  const varint = () => {
    for (let value = 0, factor = 1; ; factor *= 128) {
      const byte = message[at++];
      if (byte === undefined) throw new RangeError('cut');
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.length) {
    const tag = varint();
    let value = varint();
    if (tag % 8 === 2) {
      const end = at + value;
      value = message.subarray(at, end);
      at = end;
    } else if (tag % 8 !== 0) throw new RangeError('a field that no aggregate has');
    yield [Math.floor(tag / 8), value];
  }
}

function* eventsOf(line) {
  const event = parsed(line);
  if (event === null) yield null;
  else if (Array.isArray(event.logEvents) && 'messageType' in event) yield* cloudwatch(event);
  else yield event;
}

/** The object that a text is, or null. */
function parsed(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === 'object' && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

/** The events of one record of a CloudWatch Logs subscription, with the keys that the extension gives them. */
function* cloudwatch({ messageType, owner, logGroup = '', logStream, logEvents }) {
  if (messageType !== 'DATA_MESSAGE') return;
  for (const { id, timestamp, message } of logEvents) {
    const record = parsed(message);
    yield {
      time: new Date(timestamp).toISOString(),
      type: 'cloudwatch',
      record: record ?? message,
      ...(record?.requestId && { requestId: record.requestId }),
      eventId: id,
      ...(logGroup.startsWith('/aws/lambda/') && { functionName: logGroup.slice('/aws/lambda/'.length) }),
      ...(owner && { accountId: owner }),
      logGroup,
      ...(logStream && { logStream }),
    };
  }
}
