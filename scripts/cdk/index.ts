/** What the package is for others: the construct, and its settings. */
export {
  AttachOptions, AttachToAllOptions, ExistingStream, ExtensionAttributes, IFunctionFilter, KinesisTelemetryExtension, KinesisTelemetryExtensionProps,
  SsmOptions, StreamOptions, TelemetryExtension,
} from './extension';
export { ExtensionSettings } from './settings';
