//! Promise 1 by chance: clients that do everything which leaves state behind see what they would see with a server
//! of their own.
//!
//! Every client exists twice, through the gateway and direct, in two databases of one server that hold the same. Each
//! step is a client and something that it says, chosen by a seed, done on both sides, and what is shown must be equal:
//! messages, reported parameters, notifications. Clients that need a server connection for themselves are never more
//! than the pool can give away and still serve the others; [`client`] keeps that account, and is on the safe side.
//!
//! `POSTERN_HUNT_STEPS` and `POSTERN_HUNT_SEED` say how far and which way; a failure prints both. What is said depends on
//! them and on the direct side's answers alone, so the same seed leads to the same place. `POSTERN_HUNT_SHRINK=1` looks
//! for a short way there.

use std::time::Instant;

mod client;
mod dice;
mod shrink;
mod statements;
mod wire;
mod world;

use client::{Client, Login, Plan, Rules};
use dice::Dice;
use shrink::{Script, shrink};
use world::{Difference, World};

/// How clients and server connections meet.
#[derive(Clone, Copy, Debug)]
struct Hunt {
    /// Of the gateway; none: it is left out.
    pool: Option<&'static str>,
    clients: usize,
    servers: usize,
    rules: Rules,
}

/// A client keeps its server connection, and there is one for each.
const SESSION: Hunt = Hunt {
    pool: Some("mode = \"session\"\nsize = 12\nmin_idle = 1"),
    clients: 12,
    servers: 12,
    rules: Rules {
        resets: false,
        sources: true,
    },
};

/// Clients share few server connections, and nothing shows it.
const SHARED: Hunt = Hunt {
    pool: None,
    clients: 12,
    servers: 3,
    rules: Rules {
        resets: true,
        sources: false,
    },
};

/// The same through the gateway.
const AUTO: Hunt = Hunt {
    pool: Some("mode = \"auto\"\nsize = 3\nmin_idle = 1\nwait_timeout = \"8s\""),
    ..SHARED
};

/// Whatever the hunt calls a difference in earnest must be one.
#[test]
fn servers_of_their_own_show_no_difference() {
    hunt(SHARED, 3_000);
}

#[test]
fn clients_of_a_session_pool_see_what_their_own_server_would_show() {
    hunt(SESSION, 4_000);
}

#[test]
fn clients_that_share_see_what_their_own_server_would_show() {
    hunt(AUTO, 1_000);
}

fn hunt(hunt: Hunt, steps: usize) {
    let steps = number("POSTERN_HUNT_STEPS").unwrap_or(steps);
    let seed = number("POSTERN_HUNT_SEED").unwrap_or(1);
    let shrinks = number("POSTERN_HUNT_SHRINK") == Some(1);
    let mut dice = Dice::new(seed as u64);
    let logins: Vec<_> = (0..hunt.clients).map(|_| Login::any(&mut dice)).collect();
    let mut world = World::new(hunt.pool, &logins);
    let indexed = logins.iter().enumerate();
    let mut clients: Vec<_> = indexed.map(|(index, login)| Client::new(index, *login)).collect();
    let mut script = Script::new();
    let began = Instant::now();
    let mut refusals = 0;
    for number in 0..steps {
        if !shrinks && script.len() >= 2 * TOLD {
            script.drain(..TOLD);
        }
        let (index, plan) = choose(&mut clients, &mut dice, hunt);
        script.push((index, plan.step.clone()));
        let mut outcome = world.run(index, &plan.step);
        if number % 1_000 == 999 {
            outcome = outcome.and_then(|done| world.compare_locks().map(|()| done));
        }
        match outcome {
            Ok(done) => clients[index].done(&plan, done),
            // Somebody who has met code that was just changed was tied for what it might have left: the others wait for nothing,
            // and see nothing that isn't theirs. All begin anew.
            Err(difference) if difference.is_refusal() && refusals < steps / 10_000 => {
                refusals += 1;
                println!("step {number}: no server connection came free");
                drop(world);
                script.clear();
                clients
                    .iter_mut()
                    .for_each(|client| *client = Client::new(client.index, client.login));
                let logins: Vec<_> = clients.iter().map(|client| client.login).collect();
                world = World::new(hunt.pool, &logins);
            }
            Err(difference) => {
                tell(number, index, &script, &world);
                let holders: Vec<_> = clients.iter().filter(|client| client.is_holding()).collect();
                println!("who may keep a server connection: {holders:?}");
                drop(world);
                if shrinks && let Some((script, logins)) = shrink(hunt, &logins, &script, &difference) {
                    println!("a short way to it:");
                    for (index, step) in script {
                        println!(
                            "  client {index} (at first {:?}): {step:?}",
                            logins[index].parameters()
                        );
                    }
                }
                panic!(
                    "seed {seed}, step {number}, client {index}: a difference\n{}",
                    difference.text
                );
            }
        }
    }
    let rate = steps as f64 / began.elapsed().as_secs_f64();
    println!("{steps} steps of seed {seed}, {rate:.0} a second");
    if let Err(Difference { text, .. }) = world.end() {
        panic!("seed {seed}, at the end of {steps} steps: a difference\n{text}");
    }
}

/// Who does what next.
fn choose(clients: &mut [Client], dice: &mut Dice, hunt: Hunt) -> (usize, Plan) {
    let holders: Vec<_> = (0..clients.len())
        .filter(|index| clients[*index].is_holding())
        .collect();
    let most = if hunt.servers < clients.len() {
        hunt.servers - 1
    } else {
        clients.len()
    };
    let free = holders.len() < most;
    if !free && dice.percent(5) {
        let holder = dice.pick(&holders);
        return (holder, clients[holder].clean_up(dice, hunt.rules));
    }
    let index = if !free && dice.percent(30) {
        dice.pick(&holders)
    } else {
        dice.below(clients.len())
    };
    (index, clients[index].plan(dice, hunt.rules, free))
}

/// At least so many steps are kept, to be told of.
const TOLD: usize = 1_000;

fn tell(number: usize, client: usize, script: &Script, world: &World) {
    let first = number + 1 - script.len();
    let numbered = || {
        script
            .iter()
            .enumerate()
            .map(|(place, step)| (first + place, step))
    };
    println!("the last steps of client {client}:");
    let own: Vec<_> = numbered().filter(|(_, (index, _))| *index == client).collect();
    for (number, (_, step)) in own.iter().skip(own.len().saturating_sub(30)) {
        println!("  {number}: {step:?}");
    }
    println!("the last steps of all:");
    for (number, (index, step)) in numbered().skip(script.len().saturating_sub(60)) {
        println!("  {number}: client {index}: {step:?}");
    }
    println!(
        "server connections, and what each has done last:\n{}",
        world.servers()
    );
}

fn number(name: &str) -> Option<usize> {
    let text = std::env::var(name).ok()?;
    let number = text.replace('_', "").parse();
    Some(number.unwrap_or_else(|_| panic!("{name} isn't a number: {text}")))
}
