/**
 * The construct: a stream, the layers, a policy, and `attachTo` for a function.
 *
 *     const telemetry = new KinesisTelemetryExtension(this, 'Telemetry', { layers: 'target/layer' });
 *     telemetry.attachTo(fn, { settings: { flush: 'end', tags: { team: 'payments' } } });
 *
 * Another stack takes it by `KinesisTelemetryExtension.fromSsm`. A layer must not go from stack to stack as a reference: its
 * ARN has a version in it, and CloudFormation refuses to publish a new one as long as another stack imports the old one.
 */
import {
  Annotations, Aspects, Duration, IAspect, RemovalPolicy, Tags, aws_iam as iam, aws_kinesis as kinesis, aws_kms as kms, aws_lambda as lambda, aws_ssm as ssm,
} from 'aws-cdk-lib';
import { Construct, IConstruct } from 'constructs';

import { checkedLayer } from './layer';
import { ExtensionSettings, PREFIX, environment } from './settings';

/** Where a stack's parameters lie, for SAM, Terraform and `fromSsm`. */
export const PARAMETERS = '/telemetry/kinesis';

/** Every architecture that Lambda has. */
export const ARCHITECTURES: readonly lambda.Architecture[] = [lambda.Architecture.X86_64, lambda.Architecture.ARM_64];

/** How a stream is made. */
export interface StreamOptions {
  /** Default: CloudFormation makes one up. A stream with a name of its own can't be replaced by an update. */
  readonly name?: string;
  /** Default: on demand, where nobody has to know the traffic before. */
  readonly mode?: kinesis.StreamMode;
  /** Number of shards, with `StreamMode.PROVISIONED` only: each takes 1 MB/s or 1000 records/s. Default: 1. */
  readonly shards?: number;
  /** How long a record can be read, from 24 hours to 365 days. Default: 24 hours, which is in the price. */
  readonly retention?: Duration;
  /**
   * Default: `MANAGED`, the account's key `alias/aws/kinesis`: nothing to look after, and a function needs no permission
   * for it, but no other account can write. `KMS` is a key of your own, which costs by the month and by the call, and
   * for which the policy grants `kms:GenerateDataKey`.
   */
  readonly encryption?: kinesis.StreamEncryption;
  /** Your own key, with `StreamEncryption.KMS`. Default: one is made. */
  readonly encryptionKey?: kms.IKey;
}

/** A stream that is there already. */
export interface ExistingStream {
  /** May be of another region or account; another account's stream needs a resource policy that lets this one in. */
  readonly arn: string;
  /** The key it is encrypted with, when that is a customer's. */
  readonly encryptionKey?: kms.IKey;
}

/** What the construct is made from. */
export interface KinesisTelemetryExtensionProps {
  /** The folder that `scripts/build-layer` writes: `<layers>/<architecture>/extensions/kinesis-telemetry-extension`; or one with a release's two zips. */
  readonly layers: string;
  /** Architectures to make a layer for. Default: x86_64 and arm64. */
  readonly architectures?: lambda.Architecture[];
  /** The stream to make, or `{ arn }` of an existing one. Default: one is made, with the defaults of `StreamOptions`. */
  readonly stream?: StreamOptions | ExistingStream;
  /** Of the layers; `-x86_64` or `-arm64` is added. Default: `kinesis-telemetry-extension`. */
  readonly layerName?: string;
  /** Of the managed policy. Default: CloudFormation makes one up. */
  readonly policyName?: string;
  /** What becomes of stream and layers when they leave the stack. Default: they are retained. */
  readonly removalPolicy?: RemovalPolicy;
  /** Put on what the construct makes and can be tagged: not on layers and the managed policy, which CloudFormation can't tag. */
  readonly tags?: Readonly<Record<string, string>>;
}

/** How one function gets its telemetry shipped. */
export interface AttachOptions {
  /** Default: the extension's own defaults. */
  readonly settings?: ExtensionSettings;
  /**
   * Forbids the function to write to CloudWatch Logs, so that nothing is paid for there; the telemetry comes all the
   * same. The extension's own lines then go unseen too, unless `types` has `extension`. Default: false.
   */
  readonly denyCloudWatchLogs?: boolean;
}

/** An extension that was deployed elsewhere. */
export interface ExtensionAttributes {
  /** ARNs of layer versions, by architecture: `x86_64`, `arm64`. */
  readonly layerArns: Readonly<Record<string, string>>;
  /** The stream to write to. */
  readonly streamArn: string;
  /** The key that the stream is encrypted with, when that is a customer's. */
  readonly encryptionKey?: kms.IKey;
  /** A managed policy that allows writing. Default: each function's role gets the permission itself. */
  readonly policyArn?: string;
}

/** Which parameters to take. */
export interface SsmOptions {
  /** What the parameters' names begin with. Default: `/telemetry/kinesis`. */
  readonly prefix?: string;
  /** The version of the extension, such as `0.1.0`, whose layers are never replaced. Default: the latest. */
  readonly version?: string;
}

/** Chooses functions. */
export interface IFunctionFilter {
  /** Whether `fn` is to have the extension. */
  matches(fn: lambda.Function): boolean;
}

/** How all functions of a scope get their telemetry shipped. */
export interface AttachToAllOptions extends AttachOptions {
  /** Default: every function for which there is a layer, but no container images. */
  readonly filter?: IFunctionFilter;
}

/** What functions have already, so that nothing is added twice. */
const attached = new WeakMap<lambda.Function, { readonly by: TelemetryExtension; denied: boolean }>();

/** The extension, ready to be attached to functions. */
export abstract class TelemetryExtension extends Construct {
  /** The stream it writes to. */
  abstract readonly stream: kinesis.IStream;
  /** A layer for each architecture, by its name: `x86_64`, `arm64`. */
  abstract readonly layers: Readonly<Record<string, lambda.ILayerVersion>>;

  /**
   * Adds to `fn` the layer of its architecture, the settings, and the permission to write (or to assume `roleArn`).
   * A second call for the same function changes its settings and adds nothing else.
   */
  public attachTo(fn: lambda.Function, options: AttachOptions = {}): void {
    const problem = this.problem(fn);
    if (problem) throw new Error(problem);
    const settings = options.settings ?? {};
    // The ARN, not the name: it carries the region, and is right for a stream in another account too.
    const variables = { [`${PREFIX}STREAM`]: this.stream.streamArn, ...environment(settings) };
    Object.entries(variables).forEach(([name, value]) => fn.addEnvironment(name, value));
    const known = attached.get(fn) ?? { by: this, denied: false };
    if (!attached.has(fn)) {
      fn.addLayers(this.layers[fn.architecture.name] as lambda.ILayerVersion);
      this.permit(fn, settings.roleArn);
      attached.set(fn, known);
    }
    if (options.denyCloudWatchLogs && !known.denied) {
      this.denyLogs(fn, settings);
      known.denied = true;
    }
  }

  /** Attaches the extension to every function in `scope`, also to those that are added later. */
  public attachToAll(scope: IConstruct, options: AttachToAllOptions = {}): void {
    const visit = (node: IConstruct): void => {
      if (!(node instanceof lambda.Function) || attached.has(node) || options.filter?.matches(node) === false) return;
      const problem = this.problem(node);
      if (problem) Annotations.of(node).addWarningV2('kinesis-telemetry-extension:not-attached', problem);
      else this.attachTo(node, options);
    };
    const aspect: IAspect = { visit };
    Aspects.of(scope).add(aspect);
  }

  /** Lets somebody else write to the stream, such as the role that `roleArn` names. */
  public grantWrite(grantee: iam.IGrantable): iam.Grant {
    const grant = this.stream.grant(grantee, 'kinesis:PutRecords');
    this.stream.encryptionKey?.grant(grantee, 'kms:GenerateDataKey');
    return grant;
  }

  /** Lets its bearer write to the stream, and nothing else; or there is none, and roles get the permission one by one. */
  protected abstract writePolicy(): iam.IManagedPolicy | undefined;

  /** Why `fn` can't have the extension. */
  private problem(fn: lambda.Function): string | undefined {
    const name = fn.node.path;
    if (fn.runtime.name === lambda.Runtime.FROM_IMAGE.name) {
      return `${name} is a container image, which takes no layers. Put this into its Dockerfile: COPY --from=REGISTRY/kinesis-telemetry-extension:VERSION /opt/ /opt/`;
    }
    if (!this.layers[fn.architecture.name]) return `${name} is for ${fn.architecture.name}; there are layers for ${Object.keys(this.layers).join(', ')} only`;
    if (!fn.role) return `${name} has no role that the telemetry policy could be attached to`;
    const by = attached.get(fn)?.by ?? this;
    return by === this ? undefined : `${name} has the extension of ${by.node.path} already`;
  }

  private permit(fn: lambda.Function, roleArn: string | undefined): void {
    const policy = this.writePolicy();
    if (roleArn) {
      // That role writes, not the function's own; its trust policy has to let the function's role in.
      fn.addToRolePolicy(new iam.PolicyStatement({ actions: ['sts:AssumeRole'], resources: [roleArn] }));
    } else if (policy && fn.role instanceof iam.Role) {
      fn.role.addManagedPolicy(policy);
    } else if (policy instanceof iam.ManagedPolicy && fn.role) {
      // CDK adds no managed policy to a role of another stack, with a warning only. So the policy names the role.
      policy.attachToRole(fn.role);
      fn.node.addDependency(policy);
    } else {
      this.grantWrite(fn);
    }
  }

  private denyLogs(fn: lambda.Function, settings: ExtensionSettings): void {
    if (settings.metrics === 'emf' || settings.fallback === 'log') {
      throw new Error(`${fn.node.path}: metrics=emf and fallback=log write to CloudWatch Logs, which denyCloudWatchLogs forbids`);
    }
    // Every log group: what this does not deny, another of the role's policies may allow.
    const actions = ['logs:CreateLogGroup', 'logs:CreateLogStream', 'logs:PutLogEvents'];
    fn.addToRolePolicy(new iam.PolicyStatement({ effect: iam.Effect.DENY, actions, resources: ['*'] }));
  }
}

/** Takes what is deployed, and makes nothing. */
class Imported extends TelemetryExtension {
  readonly stream: kinesis.IStream;
  readonly layers: Readonly<Record<string, lambda.ILayerVersion>>;

  private readonly policy: iam.IManagedPolicy | undefined;

  /** `layerArn` is asked only for architectures that functions have: a parameter that nothing refers to would be a warning. */
  constructor(scope: Construct, id: string, attributes: ExtensionAttributes, layerArn = (name: string) => attributes.layerArns[name] as string) {
    super(scope, id);
    const { streamArn, encryptionKey } = attributes;
    this.stream = kinesis.Stream.fromStreamAttributes(this, 'Stream', { streamArn, ...(encryptionKey && { encryptionKey }) });
    this.policy = attributes.policyArn ? iam.ManagedPolicy.fromManagedPolicyArn(this, 'Policy', attributes.policyArn) : undefined;
    const made: Record<string, lambda.ILayerVersion> = {};
    const make = (name: string) => (made[name] ??= lambda.LayerVersion.fromLayerVersionArn(this, `Layer-${name}`, layerArn(name)));
    const layers = Object.keys(attributes.layerArns).map((name) => [name, { enumerable: true, get: () => make(name) }]);
    this.layers = Object.defineProperties({}, Object.fromEntries(layers));
  }

  protected writePolicy(): iam.IManagedPolicy | undefined {
    return this.policy;
  }
}

/** Makes the stream, the layers and the policy. */
export class KinesisTelemetryExtension extends TelemetryExtension {
  /** The extension that another stack, account or tool has deployed. */
  public static fromAttributes(scope: Construct, id: string, attributes: ExtensionAttributes): TelemetryExtension {
    return new Imported(scope, id, attributes);
  }

  /** The extension that `scripts/deploy` has deployed to the same account and region. Each deployment looks the parameters up anew. */
  public static fromSsm(scope: Construct, id: string, options: SsmOptions = {}): TelemetryExtension {
    const prefix = options.prefix ?? PARAMETERS;
    const value = (name: string): string => ssm.StringParameter.valueForStringParameter(scope, `${prefix}/${name}`);
    const layerArns = Object.fromEntries(ARCHITECTURES.map(({ name }) => [name, '']));
    const attributes = { layerArns, streamArn: value('stream/arn'), policyArn: value('runtime/policy/arn') };
    return new Imported(scope, id, attributes, (name) => value(`extension/${name}/${options.version ?? 'latest'}`));
  }

  /** Made here, or the existing one. */
  readonly stream: kinesis.IStream;
  /** Lets its bearer write to the stream, and nothing else. */
  readonly policy: iam.ManagedPolicy;
  /** A layer for each architecture, by its name: `x86_64`, `arm64`. */
  readonly layers: Readonly<Record<string, lambda.ILayerVersion>>;

  constructor(scope: Construct, id: string, props: KinesisTelemetryExtensionProps) {
    super(scope, id);
    const removalPolicy = props.removalPolicy ?? RemovalPolicy.RETAIN;
    this.stream = this.streamOf(props.stream ?? {}, removalPolicy);
    this.policy = this.policyFor(this.stream, props.policyName);
    const layers = (props.architectures ?? ARCHITECTURES).map((architecture) => [architecture.name, this.layerFor(architecture, props, removalPolicy)]);
    this.layers = Object.fromEntries(layers);
    Object.entries(props.tags ?? {}).forEach(([key, value]) => Tags.of(this).add(key, value));
  }

  protected writePolicy(): iam.IManagedPolicy {
    return this.policy;
  }

  private streamOf(stream: StreamOptions | ExistingStream, removalPolicy: RemovalPolicy): kinesis.IStream {
    if ('arn' in stream) {
      const key = stream.encryptionKey;
      return kinesis.Stream.fromStreamAttributes(this, 'Stream', { streamArn: stream.arn, ...(key && { encryptionKey: key }) });
    }
    return new kinesis.Stream(this, 'Stream', {
      ...(stream.name && { streamName: stream.name }),
      streamMode: stream.mode ?? kinesis.StreamMode.ON_DEMAND,
      ...(stream.shards && { shardCount: stream.shards }),
      retentionPeriod: stream.retention ?? Duration.hours(24),
      encryption: stream.encryption ?? kinesis.StreamEncryption.MANAGED,
      ...(stream.encryptionKey && { encryptionKey: stream.encryptionKey }),
      removalPolicy,
    });
  }

  private policyFor(stream: kinesis.IStream, name: string | undefined): iam.ManagedPolicy {
    const policy = new iam.ManagedPolicy(this, 'Policy', {
      ...(name && { managedPolicyName: name }),
      description: 'Lets the Kinesis telemetry extension write to its stream',
      statements: [new iam.PolicyStatement({ actions: ['kinesis:PutRecords'], resources: [stream.streamArn] })],
    });
    if (stream.encryptionKey) {
      policy.addStatements(new iam.PolicyStatement({ actions: ['kms:GenerateDataKey'], resources: [stream.encryptionKey.keyArn] }));
    }
    return policy;
  }

  private layerFor(architecture: lambda.Architecture, props: KinesisTelemetryExtensionProps, removalPolicy: RemovalPolicy): lambda.LayerVersion {
    return new lambda.LayerVersion(this, `Layer-${architecture.name}`, {
      layerVersionName: `${props.layerName ?? 'kinesis-telemetry-extension'}-${architecture.name}`,
      description: 'Puts telemetry of Lambda functions on a Kinesis data stream',
      license: 'Apache-2.0',
      // The hash of a folder, or of a release's zip, does not depend on times: a layer that did not change is not published anew.
      code: lambda.Code.fromAsset(checkedLayer(props.layers, architecture.name)),
      compatibleArchitectures: [architecture],
      removalPolicy,
    });
  }
}
