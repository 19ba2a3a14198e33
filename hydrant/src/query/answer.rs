//! Asking, and what is answered.
//!
//! What enters: a query and its times. What leaves: a value, and who could not be asked for their part of it.

use std::collections::HashMap;

use anyhow::anyhow;
use promql::{Element, Labels, Sample, Series, Value, json, parse_time};
use proto::logcache::v1::prom_ql;
use proto::logcache::v1::prom_ql_querier_client::PromQlQuerierClient;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use transport::reason;

use super::WITHIN;
use super::steps::Steps;
use crate::cli::Failure;
use crate::render::safe;
use crate::token::Bearer;

/// The largest answer that is taken: a million samples, and their labels.
const MAX_ANSWER: usize = 128 * 1024 * 1024;

/// The metadata that names who could not be asked.
const PARTIAL: &str = "x-hydrant-partial";

/// What was answered.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) value: Value,
    /// Dopplers that could not be asked, as the server names them.
    missing: Vec<String>,
}

/// Asks about the times of `steps`, or about one time, in milliseconds; without any, about now.
pub(super) async fn ask(
    (channel, bearer): (Channel, Bearer),
    query: &str,
    time: Option<i64>,
    steps: Option<&Steps>,
) -> Result<Answer, Failure> {
    let mut client = PromQlQuerierClient::with_interceptor(channel, bearer).max_decoding_message_size(MAX_ANSWER);
    let query = query.to_owned();
    let asked = async {
        match steps {
            Some(Steps { start, end, step }) => {
                let (start, end, step) = (seconds(*start), seconds(*end), seconds(*step));
                let request = prom_ql::RangeQueryRequest { query, start, end, step };
                client.range_query(request).await.map(|response| split(response, of_range))
            }
            None => {
                let request = prom_ql::InstantQueryRequest { query, time: time.map(seconds).unwrap_or_default() };
                client.instant_query(request).await.map(|response| split(response, of_instant))
            }
        }
    };
    let late = || Status::deadline_exceeded(format!("no answer within {} s", WITHIN.as_secs()));
    let answered = timeout(WITHIN, asked).await.unwrap_or_else(|_| Err(late()));
    let (value, missing) = answered.map_err(|status| refused(&status))?;
    let value = value.ok_or_else(|| Failure::Failed(anyhow!("the answer is a text, and only numbers can be shown")))?;
    Ok(Answer { value, missing })
}

impl Answer {
    /// What is wrong with the answer, though it is one.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        self.missing
            .iter()
            .map(|doppler| format!("incomplete: the cache of doppler {} could not be asked", safe(doppler)))
    }

    /// The answer as the server gives it over HTTP, on a line. What would act on a terminal is escaped.
    pub(super) fn json(&self) -> String {
        let mut text = json::success(&self.value);
        if !self.missing.is_empty() {
            let missed =
                self.missing.iter().map(|doppler| format!("the cache of doppler {doppler} could not be asked"));
            let warnings = serde_json::Value::from_iter(missed);
            text.pop();
            text.push_str(&format!(r#","warnings":{warnings}}}"#));
        }
        let mut line = String::with_capacity(text.len() + 1);
        for char in text.chars() {
            match char {
                '\u{7f}'..='\u{9f}'
                | '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}' => line.push_str(&format!("\\u{:04x}", u32::from(char))),
                _ => line.push(char),
            }
        }
        line.push('\n');
        line
    }
}

/// Seconds with three decimals.
fn seconds(millis: i64) -> String {
    let sign = if millis < 0 { "-" } else { "" };
    let millis = millis.unsigned_abs();
    format!("{sign}{}.{:03}", millis / 1000, millis % 1000)
}

fn split<T>(response: Response<T>, read: impl FnOnce(T) -> Option<Value>) -> (Option<Value>, Vec<String>) {
    let missing = response.metadata().get(PARTIAL).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let missing = missing.split(", ").filter(|name| !name.is_empty()).map(str::to_owned).collect();
    (read(response.into_inner()), missing)
}

fn of_instant(result: prom_ql::InstantQueryResult) -> Option<Value> {
    use prom_ql::instant_query_result::Result;
    Some(match result.result? {
        Result::Scalar(scalar) => Value::Scalar(sample(&scalar.time, scalar.value)?),
        Result::Vector(vector) => {
            let element = |one: prom_ql::Sample| {
                let point = one.point?;
                Some(Element { labels: labels(one.metric), sample: sample(&point.time, point.value)? })
            };
            Value::Vector(vector.samples.into_iter().filter_map(element).collect())
        }
        Result::Matrix(matrix) => Value::Matrix(series(matrix)),
    })
}

fn of_range(result: prom_ql::RangeQueryResult) -> Option<Value> {
    let prom_ql::range_query_result::Result::Matrix(matrix) = result.result?;
    Some(Value::Matrix(series(matrix)))
}

fn series(matrix: prom_ql::Matrix) -> Vec<Series> {
    let one = |series: prom_ql::Series| Series {
        labels: labels(series.metric),
        samples: series.points.iter().filter_map(|point| sample(&point.time, point.value)).collect(),
    };
    matrix.series.into_iter().map(one).collect()
}

fn labels(metric: HashMap<String, String>) -> Labels {
    Labels::new(metric)
}

fn sample(time: &str, value: f64) -> Option<Sample> {
    Some(Sample { at: parse_time(time).ok()?, value })
}

fn refused(status: &Status) -> Failure {
    Failure::Failed(match status.code() {
        Code::Unimplemented => anyhow!("the traffic controller is older than this command, and answers no queries"),
        Code::NotFound => anyhow!("not found: there is no such source, or you may not read it"),
        // What is wrong with the query: the words of the server alone.
        Code::Unknown if !status.message().is_empty() => anyhow!(safe(status.message())),
        _ => anyhow!("the traffic controller refused: {}", safe(&reason(status))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_written_as_json() {
        let point = |time: &str, value| prom_ql::Point { time: time.to_owned(), value };
        let metric = HashMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "\u{202e}\u{9b}<".to_owned())]);
        let one =
            prom_ql::Series { metric, points: vec![point("1.500", 0.5), point("x", 1.0), point("2.000", f64::NAN)] };
        let result = prom_ql::range_query_result::Result::Matrix(prom_ql::Matrix { series: vec![one] });
        let mut response = Response::new(prom_ql::RangeQueryResult { result: Some(result) });
        response.metadata_mut().insert(PARTIAL, "127.0.0.1:1, b:2".parse().unwrap());
        let (value, missing) = split(response, of_range);
        let answer = Answer { value: value.unwrap(), missing };
        let metric = r#"{"a":"\u202e\u009b\u003c","b":"2"}"#;
        let data = format!(r#"{{"metric":{metric},"values":[[1.500,"0.5"],[2.000,"NaN"]]}}"#);
        let warnings =
            r#"["the cache of doppler 127.0.0.1:1 could not be asked","the cache of doppler b:2 could not be asked"]"#;
        assert_eq!(
            answer.json(),
            format!(
                "{{\"status\":\"success\",\"data\":{{\"resultType\":\"matrix\",\"result\":[{data}]}},\"warnings\":{warnings}}}\n"
            )
        );
        assert_eq!(answer.warnings().count(), 2);
    }

    #[test]
    fn errors_are_the_words_of_the_server() {
        let said = |status: Status| match refused(&status) {
            Failure::Failed(error) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(said(Status::unknown("1:3: parse error: \u{1b}")), "1:3: parse error: \\x1b");
        assert_eq!(said(Status::not_found("not found")), "not found: there is no such source, or you may not read it");
        assert_eq!(said(Status::unavailable("away")), "the traffic controller refused: away");
    }

    #[test]
    fn times_have_three_decimals() {
        assert_eq!(
            [0, 1, 1500, -1, i64::MIN].map(seconds),
            ["0.000", "0.001", "1.500", "-0.001", "-9223372036854775.808"]
        );
    }
}
