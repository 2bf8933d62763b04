//! Downstream: what Kinesis takes. Records, PutRecords requests, signatures, answers. Knows neither
//! Lambda nor the queue.

mod buffers;
mod cbor;
pub mod client;
pub mod clock_skew;
pub mod credentials;
pub mod endpoint;
pub mod error;
mod error_body;
pub mod gzip;
pub mod http;
mod interrupt;
pub mod kpl;
pub mod line;
pub mod place;
pub mod provider;
pub mod proxy;
pub mod record;
mod reflection;
pub mod request;
pub mod response;
pub mod sign;
mod small_file;
pub mod sts;
mod tls;
mod transport;
pub mod wire;

use self::endpoint::{Endpoint, Stream};
use self::http::HttpSettings;
use self::line::{Envelope, PartitionKey};
use self::place::Place;
use self::provider::CredentialsSource;
use self::record::{Compression, RecordFormat};
use self::sts::Role;
use self::wire::Wire;

/// What this room needs to know. Made when the environment is read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to.
    pub stream: Stream,
    /// Where Kinesis is, and the region that signatures name.
    pub endpoint: Endpoint,
    /// Where credentials come from.
    pub credentials: CredentialsSource,
    /// The role whose credentials are used instead of those.
    pub role: Option<Role>,
    /// Roots and proxies.
    pub http: HttpSettings,
    /// Whether the sandbox comes out of a snapshot.
    pub snap_start: bool,
    /// What is sent.
    pub records: RecordSettings,
}

/// What becomes of an event on its way into a Kinesis record.
#[derive(Clone, Copy, Debug)]
pub struct RecordSettings {
    /// `RECORD`: how events are packed.
    pub format: RecordFormat,
    /// `COMPRESSION`: what is done to their data.
    pub compression: Compression,
    /// `RECORD_BYTES`: the largest record, data and key, in bytes.
    pub max_bytes: usize,
    /// `PARTITION_KEY`: what spreads records over shards.
    pub partition_key: PartitionKey,
    /// `ENVELOPE`: what each event carries.
    pub envelope: Envelope,
    /// `WIRE`: the form of requests, where the endpoint takes it.
    pub wire: Wire,
}

impl Settings {
    /// The names that advice mentions.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        Place {
            stream: self.stream.member().1,
            region: self.endpoint.region(),
            endpoint: self.endpoint.origin(),
            role: self.role.as_ref().map(|role| role.arn.as_str()),
            sts: self.role.as_ref().map_or("", |role| role.endpoint.origin()),
            proxies: [Some(&self.endpoint), self.role.as_ref().map(|role| &role.endpoint)]
                .map(|endpoint| Some(self.http.proxies.of(endpoint?.url())?.0)),
            ca_bundle: self.http.ca_bundle.is_some(),
            spreads: self.records.partition_key == PartitionKey::Random,
        }
    }

    /// The endpoints that are called over plain http off this machine, so that others can read what
    /// is sent there.
    pub fn readable_by_others(&self) -> impl Iterator<Item = &str> {
        let sts = self.role.as_ref().map(|role| &role.endpoint);
        [Some(&self.endpoint), sts]
            .into_iter()
            .flatten()
            .filter(|endpoint| endpoint.is_readable_by_others())
            .map(Endpoint::origin)
    }
}
