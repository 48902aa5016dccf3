//! The roads to the Lab: proxies, sign-in pages, firewalls that forget, machines that sleep. Each has a state of its own.

use std::time::{Duration, Instant};

use bridge_core::status::LinkState;
use hyper_util::client::proxy::matcher::Matcher;
use journeys::{
    connect_proxy::{ConnectProxy, Manner},
    fault_proxy::Fault,
    world::{Wishes, World},
};

/// Row 9: how soon the link is back once it can be.
const BACK: Duration = Duration::from_secs(5);

fn is_waiting_for(state: &LinkState, expected: &str) -> bool {
    matches!(state, LinkState::Waiting { code, .. } if code == expected)
}

async fn through(proxy: &ConnectProxy, url: &str) -> World {
    let proxies = Matcher::builder().all(url.to_owned()).build();
    let world = World::without_waiting(Wishes { proxies: Some(proxies), ..Wishes::default() }).await;
    assert!(!proxy.url().is_empty());
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_asks_for_a_password_says_so_and_lets_through_who_has_it() {
    let proxy = ConnectProxy::start(Manner::Basic { user: "ada".to_owned(), password: "lovelace".to_owned() });
    let world = through(&proxy, &proxy.url()).await;
    world.wait(|status| is_waiting_for(&status.link, "proxy_auth")).await;
    drop(world);

    let with_password = proxy.url().replace("http://", "http://ada:lovelace@");
    let world = through(&proxy, &with_password).await;
    world.wait(|status| matches!(status.link, LinkState::Online { .. })).await;
    world.models_are_listed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_page_is_named_and_the_link_comes_when_it_is_gone() {
    let proxy = ConnectProxy::start(Manner::PortalPage);
    let world = through(&proxy, &proxy.url()).await;
    let status = world.wait(|status| matches!(status.link, LinkState::Waiting { .. })).await;
    let LinkState::Waiting { code, cause, .. } = &status.link else { unreachable!() };
    assert!(["proxy_refused", "proxy", "tls", "not_a_lab"].contains(&code.as_str()), "{code}: {cause}");
    proxy.set(Manner::Open);
    let at = Instant::now();
    world.bridge.retry_now();
    world.wait(|status| matches!(status.link, LinkState::Online { .. })).await;
    assert!(at.elapsed() <= BACK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_comes_back_is_used_at_once() {
    let world = World::start().await;
    world.network.set(Fault::Refuse);
    world.wait(|status| matches!(status.link, LinkState::Waiting { .. })).await;
    world.network.set(Fault::Pass);
    let at = Instant::now();
    world.wait(|status| matches!(status.link, LinkState::Online { .. })).await;
    let took = at.elapsed();
    println!("linked {took:?} after the network was back");
    assert!(took <= BACK, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firewall_that_forgets_idle_connections_does_not_cut_the_link() {
    // Half of the shortest idle limit seen in the field, and more than the bridge's own silence.
    let world = World::start().await;
    world.network.kill_idle(Some(Duration::from_secs(20)));
    let before = world.network.traffic();
    tokio::time::sleep(Duration::from_secs(45)).await;
    assert_eq!(world.network.traffic().resets, before.resets);
    assert!(matches!(world.bridge.status().borrow().link, LinkState::Online { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_died_silently_while_idle_is_replaced() {
    let world = World::start().await;
    let LinkState::Online { since_ms: before, .. } = world.bridge.status().borrow().link else { panic!("linked") };
    world.network.set(Fault::HalfOpen);
    let at = Instant::now();
    let limit = wire::relay::PING_EVERY + wire::relay::PING_TIMEOUT + BACK;
    let is_new = |state: &LinkState| matches!(state, LinkState::Online { since_ms, .. } if *since_ms > before);
    let found = tokio::time::timeout(limit, async {
        let mut status = world.bridge.status();
        status.wait_for(|status| is_new(&status.link)).await.map(drop)
    });
    found.await.expect("a new link in time").expect("the bridge runs");
    println!("a silent death was noticed and mended after {:?}", at.elapsed());
    world.models_are_listed().await;
}
