//! `1k4-lab admin projects`.

use std::io::Write;

use super::{AdminError, Printer, day, the_user, users_meant, valid_name};
use crate::store::Store;

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
            printer.list(&projects, ["NAME", "ID", "USER", "SINCE"], |project| {
                [project.name.clone(), project.id.to_string(), project.user.to_string(), day(Some(project.created_at))]
            })
        }
    }
}
