//! `1k4-lab admin usage`.

use std::io::Write;

use super::{AdminError, Printer, the_project, the_user};
use crate::{
    api::SumView,
    calendar,
    credits::Credits,
    store::{RequestFilter, Store, SumBy},
};

/// What requests come to.
#[derive(Debug, clap::Args)]
pub struct Usage {
    /// What to put them together by.
    #[arg(long, value_name = "WHAT", default_value = "day")]
    by: By,
    /// Whose; everybody's when left out.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Of which project; needs --user where there are several users.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// From this UTC day on, such as 2026-11-20.
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// Before this UTC day.
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
}

/// What requests are put together by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// The UTC day.
    Day,
    /// The model.
    Model,
    /// The key.
    Key,
    /// The project.
    Project,
}

pub(super) async fn run(store: &Store, usage: Usage, printer: &mut Printer<'_, impl Write>) -> Result<(), AdminError> {
    let mut filter = RequestFilter {
        from: usage.from.as_deref().map(|day| start_of("--from", day)).transpose()?,
        to: usage.to.as_deref().map(|day| start_of("--to", day)).transpose()?,
        ..RequestFilter::default()
    };
    if usage.user.is_some() || usage.project.is_some() {
        let owner = the_user(store, usage.user.as_deref()).await?;
        filter.user = Some(owner.id);
        if usage.project.is_some() {
            filter.project = Some(the_project(store, &owner, usage.project.as_deref()).await?.id);
        }
    }
    let (by, header) = match usage.by {
        By::Day => (SumBy::Day, "DAY"),
        By::Model => (SumBy::Model, "MODEL"),
        By::Key => (SumBy::Key, "KEY"),
        By::Project => (SumBy::Project, "PROJECT"),
    };
    let sums = store.usage_sums(&filter, by).await?;
    if printer.json {
        let sums: Vec<SumView> = sums.into_iter().map(SumView::from).collect();
        return printer.say(&sums, "");
    }
    printer.list(&sums, [header, "REQUESTS", "INPUT TOKENS", "OUTPUT TOKENS", "CREDITS"], |sum| {
        [
            sum.bucket.clone(),
            sum.requests.to_string(),
            sum.input_tokens.to_string(),
            sum.output_tokens.to_string(),
            Credits::of_nano(sum.cost_nano).to_string(),
        ]
    })
}

fn start_of(flag: &'static str, day: &str) -> Result<i64, AdminError> {
    calendar::day(day).and_then(|day| i64::try_from(day * 86_400_000).ok()).ok_or(AdminError::InvalidDay(flag))
}
