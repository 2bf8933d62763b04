CREATE VIEW invocations AS
SELECT
  functionname,
  coalesce(json_extract_scalar(record, '$.status'), 'unfinished') AS status,
  CAST(json_extract_scalar(record, '$.durationMs') AS double) AS duration_ms,
  CAST(json_extract_scalar(record, '$.billedDurationMs') AS double) AS billed_ms,
  CAST(json_extract_scalar(record, '$.memorySizeMB') AS double) AS memory_mb,
  json_extract_scalar(record, '$.coldStart') = 'true' AS cold,
  coalesce(json_extract_scalar(record, '$.levels.ERROR'), json_extract_scalar(record, '$.levels.FATAL')) IS NOT NULL AS loud
FROM (SELECT *, row_number() OVER (PARTITION BY eventid ORDER BY "time") AS copy FROM telemetry WHERE type = 'kinesis-telemetry.invocation')
WHERE copy = 1;

-- With e0, because Athena keeps the decimals of its inputs: 1 / 3.0 is 0.3.
SELECT
  functionname,
  count(*) AS invocations,
  100e0 * count_if(status <> 'success') / count(*) AS error_percent,
  min(CASE WHEN duration_rank >= 0.99e0 THEN duration_ms END) AS p99_ms,
  100e0 * count_if(cold) / count(*) AS cold_percent,
  coalesce(sum(billed_ms * memory_mb), 0e0) / 1024e0 / 1000e0 * 0.0000166667e0 + count(*) * 0.0000002e0 AS dollars -- x86_64 in us-east-1
FROM (SELECT *, cume_dist() OVER (PARTITION BY functionname, duration_ms IS NULL ORDER BY duration_ms) AS duration_rank FROM invocations)
GROUP BY functionname
ORDER BY functionname;
