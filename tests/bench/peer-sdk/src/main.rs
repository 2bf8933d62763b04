//! The same task as a Rust user would write it today, with the `lambda-extension` crate and the AWS SDK for Rust: one record
//! for each event, 500 a request, what failed once more. No envelope, no queue, no account of losses.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use lambda_extension::{Error, Extension, LambdaTelemetry, LogBuffering, SharedService, service_fn};

type Event = LambdaTelemetry<serde_json::Value>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let config = aws_config::load_from_env().await;
    let client = Client::new(&config);
    let stream = std::env::var("KINESIS_TELEMETRY_STREAM")?;
    let port = std::env::var("KINESIS_TELEMETRY_PORT")?.parse()?;
    let ship = move |events: Vec<Event>| {
        let (client, stream) = (client.clone(), stream.clone());
        async move { put_all(&client, &stream, &events).await }
    };
    Extension::new()
        .with_events(&["INVOKE", "SHUTDOWN"])
        .with_telemetry_types(&["platform", "function"])
        .with_telemetry_port_number(port)
        // As all contestants ask.
        .with_telemetry_buffering(LogBuffering { timeout_ms: 25, max_bytes: 1_048_576, max_items: 10_000 })
        .with_telemetry_record_type::<serde_json::Value>()
        .with_telemetry_processor(SharedService::new(service_fn(ship)))
        .run()
        .await
}

async fn put_all(client: &Client, stream: &str, events: &[Event]) -> Result<(), Error> {
    for some in events.chunks(500) {
        let mut entries = Vec::with_capacity(some.len());
        for event in some {
            let data = Blob::new(serde_json::to_vec(event)?);
            entries.push(PutRecordsRequestEntry::builder().data(data).partition_key("peer").build()?);
        }
        let answer = client.put_records().stream_name(stream).set_records(Some(entries.clone())).send().await?;
        if answer.failed_record_count().unwrap_or_default() > 0 {
            let failed = entries.into_iter().zip(answer.records()).filter(|(_, record)| record.error_code().is_some());
            let failed = failed.map(|(entry, _)| entry).collect();
            client.put_records().stream_name(stream).set_records(Some(failed)).send().await?;
        }
    }
    Ok(())
}
