/** What to look at, and what to be woken for: a dashboard and alarms on the stream and the functions that write to it. */
import { Duration, aws_cloudwatch as cloudwatch, aws_cloudwatch_actions as actions, aws_kinesis as kinesis, aws_lambda as lambda, aws_sns as sns } from 'aws-cdk-lib';
import { Construct } from 'constructs';

/** What `METRICS=emf` makes of the ledger, as far as it is shown here. Each has the dimension `FunctionName`. */
export const EMF = { namespace: 'KinesisTelemetryExtension', received: 'Received', lost: ['Dropped', 'PlatformDropped'], held: 'HoldMs' } as const;

/** Over which the metrics are summed up. */
const PERIOD = Duration.minutes(5);
const PERIODS_PER_DAY = Duration.days(1).toMinutes() / PERIOD.toMinutes();

/** What is watched. */
export interface MonitoringProps {
  readonly stream: kinesis.IStream;
  /** The functions that the extension is attached to. */
  readonly functions: readonly lambda.Function[];
  /** Whether somebody reads the stream, so that its lag means something. */
  readonly consumed: boolean;
  /** Whether the extensions tell metrics of their own: `METRICS=emf`. */
  readonly embeddedMetrics: boolean;
  /** An alarm goes off when more is written than this many gigabytes a day, for 15 minutes. Default: 100. */
  readonly maxGigabytesPerDay?: number;
  /** Told when an alarm goes off and when it is over. Default: the alarms are only to be seen in CloudWatch. */
  readonly topic?: sns.ITopic;
}

/** One dashboard; alarms on throttled writes, the amount of data, the consumers' lag and lost events, as far as there are such metrics. */
export class Monitoring extends Construct {
  readonly dashboard: cloudwatch.Dashboard;
  readonly alarms: readonly cloudwatch.Alarm[];

  constructor(scope: Construct, id: string, props: MonitoringProps) {
    super(scope, id);
    const { stream, functions } = props;
    const every = { period: PERIOD };
    const sum = { ...every, statistic: 'Sum' };
    const throttled = stream.metricWriteProvisionedThroughputExceeded(sum);
    const lag = stream.metricGetRecordsIteratorAgeMilliseconds({ ...every, statistic: 'Maximum' });

    this.dashboard = new cloudwatch.Dashboard(this, 'Dashboard', { defaultInterval: Duration.hours(6) });
    this.dashboard.addWidgets(
      graph('Bytes written', stream.metricIncomingBytes(sum)),
      graph('Records written', stream.metricIncomingRecords(sum)),
      // The extension sends throttled records again; what it had to drop stands in its ledger, on the stream.
      graph('Records throttled or failed', throttled, stream.metricPutRecordsThrottledRecords(sum), stream.metricPutRecordsFailedRecords(sum)),
    );
    this.dashboard.addWidgets(
      // What the extension adds to an invocation: billed, but not seen by the caller.
      graph('Extension time after the function, ms', ...functions.map((fn) => fn.metric('PostRuntimeExtensionsDuration', { ...every, statistic: 'p99' }))),
      graph('Function errors', ...functions.map((fn) => fn.metricErrors(sum))),
      ...(props.consumed ? [graph('Lag of the slowest consumer, ms', lag)] : []),
    );

    if (props.embeddedMetrics) {
      const all = (name: string) => functions.map((fn) => own(fn, name));
      this.dashboard.addWidgets(
        graph('Events received', ...all(EMF.received)),
        graph('Events lost', ...EMF.lost.flatMap(all)),
        graph('Time that invocations were held, ms', ...all(EMF.held)),
      );
    }

    const write = new cloudwatch.Alarm(this, 'WriteThrottles', {
      alarmDescription: 'The telemetry stream refuses records: it needs more shards, or on-demand mode more time to grow',
      metric: throttled,
      threshold: 1,
      comparisonOperator: cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      // A single burst is sent again and no news; two of three periods are.
      evaluationPeriods: 3,
      datapointsToAlarm: 2,
      treatMissingData: cloudwatch.TreatMissingData.NOT_BREACHING,
    });
    // An on-demand stream takes whatever a function writes, and each gigabyte costs.
    const perDay = props.maxGigabytesPerDay ?? 100;
    const volume = new cloudwatch.Alarm(this, 'Volume', {
      alarmDescription: `More than ${perDay} GB a day are written to the telemetry stream, which costs by the gigabyte`,
      metric: stream.metricIncomingBytes(sum),
      threshold: Math.round((perDay * 1e9) / PERIODS_PER_DAY),
      comparisonOperator: cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
      evaluationPeriods: 3,
      treatMissingData: cloudwatch.TreatMissingData.NOT_BREACHING,
    });
    const read = () =>
      new cloudwatch.Alarm(this, 'IteratorAge', {
        alarmDescription: 'A consumer of the telemetry stream is an hour behind; after the retention time records are lost',
        metric: lag,
        threshold: Duration.hours(1).toMilliseconds(),
        evaluationPeriods: 3,
        treatMissingData: cloudwatch.TreatMissingData.NOT_BREACHING,
      });
    this.alarms = [write, volume, ...(props.consumed ? [read()] : []), ...(props.embeddedMetrics ? [this.lost(functions)] : [])];
    if (props.topic) {
      const action = new actions.SnsAction(props.topic);
      this.alarms.forEach((alarm) => {
        alarm.addAlarmAction(action);
        alarm.addOkAction(action);
      });
    }
  }

  /** Events that never reach the stream: the extension counts them in its ledger, and with `METRICS=emf` as a metric. */
  private lost(functions: readonly lambda.Function[]): cloudwatch.Alarm {
    const dropped = functions.map((fn) => own(fn, EMF.lost[0]));
    const names = dropped.map((_, at) => `m${at}`);
    const metric = new cloudwatch.MathExpression({
      label: 'Events dropped',
      expression: `SUM([${names.join(', ')}])`,
      usingMetrics: Object.fromEntries(dropped.map((each, at) => [`m${at}`, each])),
      period: PERIOD,
    });
    return new cloudwatch.Alarm(this, 'Dropped', {
      alarmDescription: 'The extension had to drop events: its ledger on the stream says how many, and why',
      metric,
      threshold: 1,
      comparisonOperator: cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      evaluationPeriods: 1,
      treatMissingData: cloudwatch.TreatMissingData.NOT_BREACHING,
    });
  }
}

/** A metric of the extension's own, of one function. */
function own(fn: lambda.Function, metricName: string): cloudwatch.Metric {
  return new cloudwatch.Metric({ namespace: EMF.namespace, metricName, dimensionsMap: { FunctionName: fn.functionName }, period: PERIOD, statistic: 'Sum' });
}

function graph(title: string, ...left: cloudwatch.IMetric[]): cloudwatch.GraphWidget {
  return new cloudwatch.GraphWidget({ title, left, width: 8 });
}
