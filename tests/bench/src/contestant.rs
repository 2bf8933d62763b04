//! Who takes part.

use std::path::{Path, PathBuf};

use sandbox::{Kinesis, Lambda, LambdaBuilder, ms};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Floor,
    Extension,
    /// Does the same task, written for this comparison.
    Peer,
    /// Packs and sends as AWS's own producers do: what each event of a flood costs.
    Producer,
    /// An extension in production use, for another destination: how it starts, and what it holds.
    Product,
}

#[derive(Clone, Debug)]
pub(crate) struct Contestant {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    /// Which floor was built the same way.
    pub(crate) floor: &'static str,
    /// In the table and in each round.
    pub(crate) place: usize,
    pub(crate) file: PathBuf,
}

const ALL: [(&str, &str, Kind, &str); 9] = [
    ("floor-static", "floor, static", Kind::Floor, "floor-static"),
    ("extension-static", "extension, static", Kind::Extension, "floor-static"),
    ("floor-glibc", "floor, glibc", Kind::Floor, "floor-glibc"),
    ("extension-glibc", "extension, glibc", Kind::Extension, "floor-glibc"),
    ("peer-sdk", "Rust, AWS SDK", Kind::Peer, "floor-glibc"),
    ("peer-node", "Node.js, AWS SDK", Kind::Peer, "floor-glibc"),
    ("producer-agg", "Python, boto3, aws-kinesis-agg", Kind::Producer, "floor-glibc"),
    ("product-otel", "OpenTelemetry, Rust", Kind::Product, "floor-glibc"),
    ("product-sentry", "Sentry, Node.js", Kind::Product, "floor-glibc"),
];

/// Another build of the extension, static.
pub(crate) fn also(title: &str, file: PathBuf, place: usize) -> Result<Contestant, String> {
    if !file.is_file() {
        return Err(format!("{}: no such file", file.display()));
    }
    // For as long as the process lives, like all others.
    let title: &'static str = title.to_owned().leak();
    Ok(Contestant {
        id: title,
        title,
        kind: Kind::Extension,
        floor: "floor-static",
        place: ALL.len() + place,
        file,
    })
}

pub(crate) fn of(id: &str, file: PathBuf) -> Result<Contestant, String> {
    let place = ALL
        .iter()
        .position(|(known, ..)| *known == id)
        .ok_or_else(|| format!("{id}: no such contestant"))?;
    if !file.is_file() {
        return Err(format!("{}: no such file", file.display()));
    }
    let (id, title, kind, floor) = ALL[place];
    Ok(Contestant { id, title, kind, floor, place, file })
}

impl Contestant {
    /// One that [`also`] has made.
    pub(crate) fn is_another_build(&self) -> bool {
        self.place >= ALL.len()
    }

    /// What the layer holds: the bounds are for that.
    pub(crate) fn is_shipped(&self) -> bool {
        self.kind == Kind::Extension && self.floor == "floor-static"
    }

    /// A program of machine code, so that its instructions can be counted.
    pub(crate) fn is_native(&self) -> bool {
        matches!(self.kind, Kind::Floor | Kind::Extension)
    }

    /// What Node.js or Python runs.
    pub(crate) fn is_script(&self) -> bool {
        matches!(self.id, "peer-node" | "producer-agg" | "product-sentry")
    }

    pub(crate) fn takes_part_in(&self, scenario: &str) -> bool {
        match self.kind {
            Kind::Product => matches!(scenario, "start" | "cold"),
            Kind::Producer => scenario == "flood",
            _ => true,
        }
    }

    /// A sandbox with it, in which nothing but its own work takes time.
    pub(crate) fn sandbox(&self, kinesis: &Kinesis) -> LambdaBuilder {
        sandbox(&self.file, kinesis)
    }
}

/// See [`Contestant::sandbox`].
pub(crate) fn sandbox(file: &Path, kinesis: &Kinesis) -> LambdaBuilder {
    let mut builder = Lambda::builder(file)
        .kinesis(kinesis)
        .tmp_in("TMPDIR")
        .without_feedback()
        .timeout(ms(120_000));
    builder = builder
        .init_limit(ms(60_000))
        .shutdown_limit(ms(30_000))
        .setting("FLUSH_TIMEOUT_MS", "60000");
    if let Some(bundle) = kinesis.ca_bundle() {
        // The same authority by the names that the SDKs' libraries know.
        let bundle = bundle.to_string_lossy().into_owned();
        builder = builder.env("SSL_CERT_FILE", &bundle).env("NODE_EXTRA_CA_CERTS", &bundle);
    }
    builder
}
