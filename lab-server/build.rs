//! A release embeds the web app: it is built anew when the app was.

fn main() {
    // Cargo takes a folder that is missing for one that has just changed, and would compile the crate each time.
    let app = if std::path::Path::new("../ui/dist").exists() { "../ui/dist" } else { "build.rs" };
    println!("cargo::rerun-if-changed={app}");
}
