//! Who may hold a link: the newest bridge with the device's key, until it is revoked.

use std::time::{Duration, Instant};

use bridge_core::status::LinkState;
use journeys::world::{World, wait};

fn is_online(state: &LinkState) -> bool {
    matches!(state, LinkState::Online { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_of_two_bridges_with_one_identity_wins_and_the_other_stays_away() {
    let world = World::start().await;
    let twin = world.twin();
    wait(twin.status(), |status| is_online(&status.link)).await;
    let loser = world.wait(|status| matches!(status.link, LinkState::Refused { .. })).await;
    let LinkState::Refused { code, .. } = &loser.link else { unreachable!() };
    assert_eq!(code, "superseded");
    world.models_are_listed().await;
    assert!(is_online(&twin.status().borrow().link), "the winner keeps the link");
    // The owner can take it back.
    world.bridge.retry_now();
    world.wait(|status| is_online(&status.link)).await;
    wait(twin.status(), |status| matches!(&status.link, LinkState::Refused { code, .. } if code == "superseded")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_loses_its_link_within_a_second() {
    let world = World::start().await;
    let at = Instant::now();
    world.lab.store.revoke_device(world.user, world.device).await.expect("revoked");
    let status = world.wait(|status| !is_online(&status.link)).await;
    let took = at.elapsed();
    println!("the link ended {took:?} after the revocation");
    assert!(took <= Duration::from_secs(1), "{took:?}");
    world.wait(|status| matches!(&status.link, LinkState::Refused { code, .. } if code == "revoked")).await;
    drop(status);
    // And it does not come back by being asked to.
    world.bridge.retry_now();
    world.wait(|status| matches!(&status.link, LinkState::Refused { code, .. } if code == "revoked")).await;
    assert!(world.caller.models().await.is_empty());
}
