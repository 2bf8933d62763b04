/** After a deployment: says what to try next, in commands that act on the account and region that it went to. `node dist/next.js outputs.json` */
import * as fs from 'node:fs';

const [file = 'outputs.json'] = process.argv.slice(2);
const written: Record<string, Record<string, string>> = JSON.parse(fs.readFileSync(file, 'utf8'));
const [name, outputs] = Object.entries(written)[0] ?? [];
const { StreamArn: stream, DemoFunctionx8664: fn, LayerArn: layer = '' } = outputs ?? {};

// The stream may be of another account and region; the layer is always the stack's own.
const [, partition, , region, account] = layer.split(':');
// Without these, a command typed into another shell could reach another account. Where credentials are variables, no command
// can name them: so each names the account, in an ARN or as an option.
const variables = ['AWS_ENDPOINT_URL', 'AWS_PROFILE'].flatMap((variable) => (process.env[variable] ? [`${variable}=${process.env[variable]}`] : []));
const here = [...variables, `AWS_REGION=${region}`].join(' ');
const qualifier = process.env.QUALIFIER ? ` -c qualifier=${process.env.QUALIFIER}` : '';
const destroy = `${here} scripts/deploy --destroy -c stackName=${name} -c account=${account}${qualifier}`;
const functionArn = `arn:${partition}:lambda:${region}:${account}:function:${fn}`;

// Emulators of AWS's control plane keep functions, but don't run them.
const look = `Next, to see what is there:
  ${here} aws kinesis describe-stream-summary --stream-arn ${stream}
  ${here} aws lambda get-function-configuration --function-name ${functionArn}`;

const run = `Next, run a demo function, and see what its extension puts on the stream:
  ${here} aws lambda invoke --function-name ${functionArn} /dev/stdout
  ${here} scripts/tail ${stream} --since oldest
Give the extension to a function of yours:
  ${here} scripts/attach --account ${account} FUNCTION`;

if (name && stream && fn) {
  console.log(`\n${process.env.EMULATED ? look : run}\nAnd in the end, to delete the stack in account ${account}:\n  ${destroy}`);
} else {
  console.error('error: CloudFormation says that it is done, but the stack has no outputs');
  process.exitCode = 1;
}
