/** After a deployment: says what to try next. `node dist/next.js outputs.json [emulated]` */
import * as fs from 'node:fs';

const [file = 'outputs.json', emulated] = process.argv.slice(2);
const outputs: Record<string, string> = Object.assign({}, ...Object.values(JSON.parse(fs.readFileSync(file, 'utf8'))));
const { StreamName: stream, DemoFunctionx8664: fn } = outputs;

// Emulators of AWS's control plane keep functions, but don't run them.
const look = `Next, to see what is there:
  aws kinesis describe-stream-summary --stream-name ${stream}
  aws lambda get-function-configuration --function-name ${fn}`;

const run = `Next, run a demo function, and read what its extension put on the stream:
  aws lambda invoke --function-name ${fn} /dev/stdout
  for shard in $(aws kinesis list-shards --stream-name ${stream} --query 'Shards[].ShardId' --output text); do
    from=$(aws kinesis get-shard-iterator --stream-name ${stream} --shard-id $shard --shard-iterator-type TRIM_HORIZON --output text)
    aws kinesis get-records --shard-iterator $from --query 'Records[].[Data]' --output text
  done | while read -r data; do echo "$data" | base64 --decode; done`;

if (stream && fn) {
  console.log(`\n${emulated ? look : run}\nAnd in the end:\n  scripts/deploy --destroy`);
} else {
  console.error('error: CloudFormation says that it is done, but the stack has no outputs');
  process.exitCode = 1;
}
