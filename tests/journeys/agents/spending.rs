//! What messages say that they cost is what the account was charged, also where an answer was given up in the middle.

use journeys::{
    watcher::Watcher,
    world::cloud::{CREDITS_NANO, CloudWorld},
};
use serde_json::json;

use super::Desk;

/// Slow enough to be stopped in the middle. The first two hosts stop when nobody listens, the third goes on to its end.
const MODELS: [&str; 3] = ["ofake-n2000-d4000", "afake-n2000-d4000", "gfake-n80-d4000"];

#[tokio::test(flavor = "multi_thread")]
async fn the_messages_of_twenty_stopped_runs_tell_to_the_nano_what_was_charged() {
    let world = CloudWorld::with_models(&MODELS).await;
    let desk = Desk::at(world.sign_in().await).await;
    let mut runs = Vec::new();
    for (number, model) in MODELS.into_iter().cycle().enumerate().take(20) {
        // Every fourth is the agent's, and of those the last is stopped by its budget.
        let budgets = json!({ "budgets": { "steps": 5, "seconds": 2, "tokens": 100_000, "nano_credits": 1_000_000_000 } });
        let agent = match number {
            19 => Some(budgets),
            number if number % 4 == 0 => Some(json!({})),
            _ => None,
        };
        let ends = if number == 19 { "exhausted" } else { "stopped" };
        let run = desk.start_as(model, agent).await;
        Watcher::new(&desk.browser, &run).visit(6 + number % 7).await.expect("the first words");
        if ends == "stopped" {
            assert_eq!(desk.browser.post(&format!("/api/runs/{run}/stop"), &json!({})).await.status, 202);
        }
        runs.push((run, ends));
    }
    let (mut of_messages, mut of_runs, mut questions) = (0, 0, Vec::new());
    for (run, ends) in &runs {
        assert_eq!(desk.end(run).await.0, *ends);
        let run = desk.get(&format!("/api/runs/{run}")).await;
        of_runs += run["cost_nano"].as_i64().expect("a cost");
        let message = world.lab.store.message(world.user, run["message"].as_str().expect("an id").parse().expect("an id"));
        let content = message.await.expect("the messages").expect("the message").content;
        // An agent may have been stopped at its second question.
        assert!(matches!(content.usage.len(), 1..=3), "{run} {:?}", content.usage);
        for usage in content.usage {
            assert!(usage.cost_nano > 0, "{usage:?}");
            of_messages += usage.cost_nano;
            questions.push(usage.request.to_string());
        }
    }
    let records = world.records(questions.len()).await;
    let charged = world.spent(CREDITS_NANO, &records).await;
    assert_eq!((of_messages, of_runs), (charged, charged));
    questions.sort();
    let mut recorded: Vec<String> = records.into_iter().map(|record| record.id).collect();
    recorded.sort();
    assert_eq!(questions, recorded);
    let ends = desk.operations().await;
    let count = |action: &str| ends.iter().filter(|line| line["action"] == action).count();
    assert_eq!((count("run_started"), count("run_ended")), (6, 6));
    println!("{charged} nano-credits in twenty messages and in the ledger");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_of_no_credits_asks_no_providers_model() {
    let world = CloudWorld::with_models(&MODELS).await;
    let desk = Desk::at(world.sign_in().await).await;
    let budgets = |nano: i64| json!({ "budgets": { "steps": 5, "seconds": 60, "tokens": 100_000, "nano_credits": nano } });
    let run = desk.start_as(MODELS[0], Some(budgets(0))).await;
    assert_eq!(desk.end(&run).await.0, "exhausted");
    // With a single one it is asked, and the record of that is the first there is.
    let run = desk.start_as(MODELS[0], Some(budgets(1))).await;
    desk.end(&run).await;
    let message = desk.get(&format!("/api/runs/{run}")).await["message"].as_str().expect("an id").parse().expect("an id");
    let message = world.lab.store.message(world.user, message).await.expect("the messages").expect("the message");
    let asked: Vec<String> = message.content.usage.iter().map(|usage| usage.request.to_string()).collect();
    assert_eq!(asked, [world.records(1).await.remove(0).id]);
}
