/**
 * Firehose from the stream to a bucket. With `RECORD=lines` (the default) each record ends with a line end, so the objects
 * are plain gzipped JSON lines, which Athena reads as they are.
 */
import { Duration, RemovalPolicy, Stack, aws_iam as iam, aws_kinesis as kinesis, aws_kinesisfirehose as firehose, aws_logs as logs, aws_s3 as s3 } from 'aws-cdk-lib';
import { Construct } from 'constructs';

/** What is archived, and for how long. */
export interface ArchiveProps {
  readonly stream: kinesis.IStream;
  /** After this, objects are deleted. Default: 90 days. */
  readonly expiration?: Duration;
}

/** A bucket that fills with what comes over the stream. It outlives the stack: an archive is not deleted by accident. */
export class Archive extends Construct {
  readonly bucket: s3.Bucket;
  readonly deliveryStream: firehose.CfnDeliveryStream;

  constructor(scope: Construct, id: string, props: ArchiveProps) {
    super(scope, id);
    this.bucket = new s3.Bucket(this, 'Bucket', {
      blockPublicAccess: s3.BlockPublicAccess.BLOCK_ALL,
      encryption: s3.BucketEncryption.S3_MANAGED,
      enforceSSL: true,
      objectOwnership: s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
      lifecycleRules: [{ expiration: props.expiration ?? Duration.days(90), abortIncompleteMultipartUploadAfter: Duration.days(1) }],
      removalPolicy: RemovalPolicy.RETAIN,
    });
    const errors = new logs.LogGroup(this, 'Errors', { retention: logs.RetentionDays.ONE_WEEK, removalPolicy: RemovalPolicy.DESTROY });
    const errorStream = new logs.LogStream(this, 'ErrorStream', { logGroup: errors, removalPolicy: RemovalPolicy.DESTROY });
    const role = this.role(props.stream, errors);
    // Not CDK's own DeliveryStream: it grants s3:GetObject*, s3:DeleteObject* and more than Firehose needs.
    this.deliveryStream = new firehose.CfnDeliveryStream(this, 'DeliveryStream', {
      deliveryStreamType: 'KinesisStreamAsSource',
      kinesisStreamSourceConfiguration: { kinesisStreamArn: props.stream.streamArn, roleArn: role.roleArn },
      extendedS3DestinationConfiguration: {
        bucketArn: this.bucket.bucketArn,
        roleArn: role.roleArn,
        compressionFormat: 'GZIP',
        bufferingHints: { intervalInSeconds: 300, sizeInMBs: 64 },
        prefix: 'telemetry/!{timestamp:yyyy/MM/dd/HH}/',
        errorOutputPrefix: 'errors/!{firehose:error-output-type}/!{timestamp:yyyy/MM/dd}/',
        cloudWatchLoggingOptions: { enabled: true, logGroupName: errors.logGroupName, logStreamName: errorStream.logStreamName },
      },
    });
    // Firehose tries its role when it is made: the policy has to be there by then.
    this.deliveryStream.node.addDependency(role);
  }

  /** What Firehose's documentation asks for, on these very resources. */
  private role(stream: kinesis.IStream, errors: logs.ILogGroup): iam.Role {
    // Firehose works for every account: without conditions a stream of another account could be delivered by this role.
    const account = Stack.of(this).account;
    const conditions = { StringEquals: { 'aws:SourceAccount': account, 'sts:ExternalId': account } };
    const role = new iam.Role(this, 'Role', { assumedBy: new iam.ServicePrincipal('firehose.amazonaws.com', { conditions }) });
    const allow = (actions: string[], ...resources: string[]) => role.addToPolicy(new iam.PolicyStatement({ actions, resources }));
    allow(['kinesis:DescribeStream', 'kinesis:GetShardIterator', 'kinesis:GetRecords', 'kinesis:ListShards'], stream.streamArn);
    allow(['s3:GetBucketLocation', 's3:ListBucket', 's3:ListBucketMultipartUploads'], this.bucket.bucketArn);
    allow(['s3:AbortMultipartUpload', 's3:GetObject', 's3:PutObject'], this.bucket.arnForObjects('*'));
    allow(['logs:PutLogEvents'], errors.logGroupArn);
    if (stream.encryptionKey) allow(['kms:Decrypt'], stream.encryptionKey.keyArn);
    return role;
  }
}
