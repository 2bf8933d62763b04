/** After a deployment: says what to try next, in commands that act on the account and region that it went to. `node dist/next.js outputs.json` */
import * as fs from 'node:fs';

const [file = 'outputs.json'] = process.argv.slice(2);
const written: Record<string, Record<string, string>> = JSON.parse(fs.readFileSync(file, 'utf8'));
const [name, outputs] = Object.entries(written)[0] ?? [];
const { StreamName: stream, DemoFunctionx8664: fn, StreamArn: arn = '' } = outputs ?? {};

/** Without these, a command typed into another shell could reach another account. */
const variables = ['AWS_ENDPOINT_URL', 'AWS_PROFILE'].flatMap((variable) => (process.env[variable] ? [`${variable}=${process.env[variable]}`] : []));
const here = [...variables, `AWS_REGION=${arn.split(':')[3]}`].join(' ');
const qualifier = process.env.QUALIFIER ? ` -c qualifier=${process.env.QUALIFIER}` : '';
const destroy = `${here} scripts/deploy --destroy -c stackName=${name}${qualifier}`;

// Emulators of AWS's control plane keep functions, but don't run them.
const look = `Next, to see what is there:
  ${here} aws kinesis describe-stream-summary --stream-name ${stream}
  ${here} aws lambda get-function-configuration --function-name ${fn}`;

const run = `Next, run a demo function, and see what its extension puts on the stream:
  ${here} aws lambda invoke --function-name ${fn} /dev/stdout
  ${here} scripts/tail ${stream} --since oldest
Give the extension to a function of yours:
  ${here} scripts/attach FUNCTION`;

if (name && stream && fn) {
  console.log(`\n${process.env.EMULATED ? look : run}\nAnd in the end, to delete the stack in account ${arn.split(':')[4]}:\n  ${destroy}`);
} else {
  console.error('error: CloudFormation says that it is done, but the stack has no outputs');
  process.exitCode = 1;
}
