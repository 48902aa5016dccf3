//! `1k4-lab admin projects`.

use std::io::Write;

use super::{AdminError, Printer, day, terms::Rates, the_project, the_user, users_meant, valid_name};
use crate::store::{ProjectSettings, Store};

/// What can be done with projects.
#[derive(Debug, clap::Subcommand)]
pub enum ProjectsVerb {
    /// Start a project.
    Add {
        /// Unique among its owner's.
        name: String,
        /// Whose; may be left out when there is one user.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Show projects.
    List {
        /// Whose; everybody's when left out.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Change a project's name or settings; what is left out stays.
    Update {
        /// Its name or id.
        project: String,
        /// Whose; may be left out when there is one user.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Another name.
        #[arg(long)]
        name: Option<String>,
        /// Whether OpenAI's streams are asked for their usage, at the price of some bytes of the request.
        #[arg(long, value_name = "ON|OFF")]
        exact_usage: Option<Switch>,
        /// How fast all its keys together may ask.
        #[command(flatten)]
        rates: Rates,
    },
    /// Delete a project: all its keys end. Its records stay until they are 90 days old.
    Delete {
        /// Its name or id.
        project: String,
        /// Whose; may be left out when there is one user.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

pub(super) async fn run(store: &Store, verb: ProjectsVerb, printer: &mut Printer<'_, impl Write>) -> Result<(), AdminError> {
    match verb {
        ProjectsVerb::Add { name, user } => {
            let owner = the_user(store, user.as_deref()).await?;
            let project = store.add_project(owner.id, valid_name(&name)?).await?;
            printer.say(&project, &format!("added {} ({}) for {}", project.name, project.id, owner.name))
        }
        ProjectsVerb::List { user } => {
            let mut projects = Vec::new();
            for user in users_meant(store, user.as_deref()).await? {
                projects.extend(store.projects(user.id).await?);
            }
            printer.list(&projects, ["NAME", "ID", "USER", "SINCE", "EXACT USAGE"], |project| {
                [
                    project.name.clone(),
                    project.id.to_string(),
                    project.user.to_string(),
                    day(Some(project.created_at)),
                    if project.settings.exact_usage { "on" } else { "off" }.to_owned(),
                ]
            })
        }
        ProjectsVerb::Update { project, user, name, exact_usage, rates } => {
            let owner = the_user(store, user.as_deref()).await?;
            let project = the_project(store, &owner, Some(&project)).await?;
            let new_name = name.as_deref().map(valid_name).transpose()?.map(str::to_owned);
            let change = |name: &mut String, settings: &mut ProjectSettings| {
                *name = new_name.unwrap_or_else(|| std::mem::take(name));
                settings.exact_usage = exact_usage.map_or(settings.exact_usage, |switch| switch == Switch::On);
                rates.lay_over(&mut settings.rates);
            };
            let (project, _) = store.update_project(owner.id, project.id, change).await?;
            printer.say(&project, &format!("changed {} ({})", project.name, project.id))
        }
        ProjectsVerb::Delete { project, user } => {
            let owner = the_user(store, user.as_deref()).await?;
            let project = the_project(store, &owner, Some(&project)).await?;
            store.delete_project(owner.id, project.id).await?;
            let sentence = format!("deleted {} ({}); its keys have ended", project.name, project.id);
            printer.say(&serde_json::json!({ "id": project.id, "deleted": true }), &sentence)
        }
    }
}
