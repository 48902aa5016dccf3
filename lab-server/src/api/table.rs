//! The same answer as JSON or as CSV, as its reader asked for it.
//!
//! A spreadsheet runs what begins like a formula, so a text that does is given an apostrophe before it. Numbers are written as they
//! are: nothing but a number can be one.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Page;
use crate::error::ApiError;

/// Where a CSV's reader finds what JSON says as `next`.
const NEXT: HeaderName = HeaderName::from_static("x-1k4-next-cursor");

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Json,
    Csv,
}

/// A value in a table.
pub(super) enum Cell {
    /// Words, maybe somebody's own.
    Text(String),
    /// A number or a truth.
    Plain(String),
    /// Nothing is known.
    Empty,
}

/// What has a line in a table.
pub(super) trait Row {
    /// The columns.
    const HEADER: &'static [&'static str];
    /// The values, in their order.
    fn cells(&self) -> Vec<Cell>;
}

impl Format {
    /// As the query says, else as the reader prefers.
    pub(super) fn of(asked: Option<Self>, headers: &HeaderMap) -> Self {
        let accepts_csv =
            headers.get_all(header::ACCEPT).iter().any(|value| value.to_str().is_ok_and(|value| value.contains("text/csv")));
        asked.unwrap_or(if accepts_csv { Self::Csv } else { Self::Json })
    }

    /// Writes the page.
    pub(super) fn write<T: Row + Serialize>(self, page: Page<T>) -> Result<Response, ApiError> {
        if self == Self::Json {
            return Ok(Json(page).into_response());
        }
        let text = csv(&page.data).map_err(|error| {
            tracing::error!(%error, "cannot write a table");
            ApiError::Internal
        })?;
        let mut response = ([(header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present")], text).into_response();
        if let Some(next) = page.next.and_then(|next| HeaderValue::try_from(next).ok()) {
            response.headers_mut().insert(NEXT, next);
        }
        Ok(response)
    }
}

impl Cell {
    pub(super) fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }

    pub(super) fn plain(value: impl ToString) -> Self {
        Self::Plain(value.to_string())
    }

    pub(super) fn maybe(value: Option<impl ToString>) -> Self {
        value.map_or(Self::Empty, Self::plain)
    }

    fn into_field(self) -> String {
        match self {
            Self::Text(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '|', '%']) => format!("'{text}"),
            Self::Text(text) | Self::Plain(text) => text,
            Self::Empty => String::new(),
        }
    }
}

fn csv<T: Row>(rows: &[T]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(T::HEADER)?;
    for row in rows {
        writer.write_record(row.cells().into_iter().map(Cell::into_field))?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Named(&'static str);

    impl Row for Named {
        const HEADER: &'static [&'static str] = &["name", "cost"];

        fn cells(&self) -> Vec<Cell> {
            vec![Cell::text(self.0), Cell::plain("-0.5")]
        }
    }

    #[test]
    fn a_formula_is_a_text_and_a_number_a_number() {
        let rows = [Named("=cmd|' /C calc'!A0"), Named("@x"), Named("-1"), Named("a,\"b\"\nc"), Named("plain")];
        let text = String::from_utf8(csv(&rows).unwrap()).unwrap();
        assert_eq!(
            text,
            "name,cost\r\n'=cmd|' /C calc'!A0,-0.5\r\n'@x,-0.5\r\n'-1,-0.5\r\n\"a,\"\"b\"\"\nc\",-0.5\r\nplain,-0.5\r\n"
        );
    }

    #[test]
    fn the_query_goes_before_the_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(Format::of(None, &headers), Format::Json);
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/csv, */*;q=0.1"));
        assert_eq!(Format::of(None, &headers), Format::Csv);
        assert_eq!(Format::of(Some(Format::Json), &headers), Format::Json);
    }
}
