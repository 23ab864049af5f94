//! Clients that share server connections: what travels with them, what ties them, what is refused.

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::gateway::{connect, stderr, stdout, with_pool};

/// The first cell of the last row.
async fn ask(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    rows.last().unwrap_or_default()
}

#[tokio::test]
async fn settings_travel_and_go_no_further() {
    let (_lab, gateway) = with_pool("mode = \"auto\"\nsize = 1");
    let one = connect(&gateway.client("app_rw")).await.unwrap();
    let two = connect(&gateway.client("app_rw")).await.unwrap();
    ask(
        &one,
        "set timezone = 'Asia/Tokyo'; set app.tenant = 'one'; select set_config('work_mem', '3MB', false)",
    )
    .await;
    assert_eq!(ask(&two, "show timezone").await, "UTC");
    assert_eq!(
        ask(&two, "select coalesce(current_setting('app.tenant', true), '')").await,
        ""
    );
    ask(&two, "set app.tenant = 'two'").await;
    assert_eq!(ask(&one, "show timezone").await, "Asia/Tokyo");
    assert_eq!(ask(&one, "show app.tenant").await, "one");
    assert_eq!(ask(&one, "show work_mem").await, "3MB");
    assert_eq!(ask(&two, "show app.tenant").await, "two");
    ask(
        &one,
        "begin; set timezone = 'Asia/Seoul'; savepoint a; set work_mem = '7MB'; rollback to a; commit",
    )
    .await;
    assert_eq!(ask(&two, "show timezone").await, "UTC");
    assert_eq!(ask(&one, "show timezone").await, "Asia/Seoul");
    assert_eq!(ask(&one, "show work_mem").await, "3MB");
    assert_eq!(gateway.metric("postern_upstream_logins_total", &["ok"]), 2.0);
}

#[tokio::test]
async fn a_reset_goes_back_to_what_the_client_began_with() {
    let (_lab, gateway) = with_pool("mode = \"auto\"\nsize = 1");
    let mut config = gateway.client("app_rw");
    config.options("-c timezone=Asia/Tokyo -c work_mem=3MB");
    let client = connect(&config).await.unwrap();
    for reset in [
        "reset timezone",
        "reset all",
        "discard all",
        "set timezone to default",
    ] {
        ask(&client, "set timezone = 'Asia/Seoul'; set work_mem = '9MB'").await;
        ask(&client, reset).await;
        assert_eq!(ask(&client, "show timezone").await, "Asia/Tokyo", "{reset}");
    }
    ask(&client, "begin").await;
    ask(&client, "set timezone = 'Asia/Seoul'").await;
    ask(&client, "reset timezone").await;
    assert_eq!(
        ask(&client, "show timezone").await,
        "Asia/Tokyo",
        "in the same transaction"
    );
    ask(&client, "rollback").await;
}

#[tokio::test]
async fn what_cannot_travel_ties_a_client_until_it_ends() {
    let (_lab, gateway) = with_pool("mode = \"auto\"\nsize = 2\nwait_timeout = \"5s\"");
    let client = connect(&gateway.client("app_rw")).await.unwrap();
    for (begin, end, reason) in [
        ("listen news", "unlisten *", "listen"),
        ("create temp table t (a int)", "drop table t", "temporary"),
        (
            "select pg_advisory_lock(7)",
            "select pg_advisory_unlock(7)",
            "advisory",
        ),
        ("prepare p as select 1", "deallocate p", "prepared"),
        (
            "prepare postern_1 as select 1",
            "deallocate postern_1",
            "prepared",
        ),
        ("declare c cursor with hold for select 1", "close c", "cursor"),
        (
            "do $$ begin perform pg_advisory_lock(8); end $$",
            "do $$ begin perform pg_advisory_unlock(8); end $$",
            "advisory",
        ),
    ] {
        ask(&client, begin).await;
        gateway.wait_for_metric("postern_pool_pinned_clients", &["app_rw"], 1.0);
        assert!(
            gateway.metric("postern_pool_pins_total", &[reason]) > 0.0,
            "{begin}"
        );
        ask(&client, end).await;
        gateway.wait_for_metric("postern_pool_pinned_clients", &["app_rw"], 0.0);
    }
    ask(&client, "create temp table t (a int)").await;
    gateway.wait_for_metric("postern_pool_pinned_clients", &["app_rw"], 1.0);
    drop(client);
    // The client says goodbye in a task of its own.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    gateway.wait_for_metric("postern_pool_pinned_clients", &["app_rw"], 0.0);
    let other = connect(&gateway.client("app_rw")).await.unwrap();
    let here = ask(
        &other,
        "select count(*) from pg_class where relnamespace = pg_my_temp_schema()",
    )
    .await;
    assert_eq!(here, "0", "the next one must not find it");
}

#[tokio::test]
async fn a_transaction_pool_refuses_what_it_cannot_keep() {
    let (_lab, gateway) = with_pool("mode = \"transaction\"\nsize = 1");
    let refused = gateway.psql("user=app_rw", "listen news");
    assert_eq!(
        stdout(&refused),
        "LISTEN",
        "it was answered; then the session ends"
    );
    let refused = gateway.psql("user=app_rw", "listen news; select 1");
    drop(refused);
    let client = connect(&gateway.client("app_rw")).await.unwrap();
    ask(&client, "create temp table t (a int)").await;
    let error = client.simple_query("select 1").await.unwrap_err();
    assert!(error.is_closed() || error.code().is_some(), "{error}");
    let next = gateway.psql("user=app_rw", "select 1");
    assert_eq!(stdout(&next), "1", "{}", stderr(&next));
}

#[tokio::test]
async fn prepared_statements_are_found_on_every_server_connection() {
    let (_lab, gateway) = with_pool("mode = \"auto\"\nsize = 2");
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(connect(&gateway.client("app_rw")).await.unwrap());
    }
    let mut statements = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        let own = format!("select {number} + $1::int");
        let shared = client.prepare("select $1::text || 'x'").await.unwrap();
        statements.push((client.prepare(&own).await.unwrap(), shared));
    }
    for round in 0..4 {
        let all = clients.iter().zip(&statements).enumerate();
        for (number, (client, (own, shared))) in all {
            let row = client.query_one(own, &[&round]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), number as i32 + round);
            let row = client.query_one(shared, &[&"a"]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), "ax");
        }
    }
    let statements_that = |outcome| gateway.metric("postern_pool_statements_total", &["app_rw", outcome]);
    assert!(statements_that("prepared") >= 7.0 && statements_that("found") >= 4.0 * 12.0 - 14.0);
    let here = ask(
        &clients[0],
        "select count(*) from pg_prepared_statements where statement like '%||%'",
    )
    .await;
    assert_eq!(here, "1", "one for all");
    ask(&clients[0], "deallocate all").await;
    assert!(clients[0].query_one(&statements[0].1, &[&"a"]).await.is_err());
    let row = clients[1].query_one(&statements[1].1, &[&"b"]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "bx", "another client's are still good");
}

#[tokio::test]
async fn nobody_sees_what_sequences_gave_to_another() {
    let (_lab, gateway) = with_pool("mode = \"auto\"\nsize = 1");
    let one = connect(&gateway.client("app_rw")).await.unwrap();
    let two = connect(&gateway.client("app_rw")).await.unwrap();
    ask(&one, "create sequence s").await;
    assert_eq!(ask(&one, "select nextval('s')").await, "1");
    let error = two.simple_query("select lastval()").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55000");
    assert!(
        error.as_db_error().unwrap().hint().is_none(),
        "it has drawn nothing"
    );
    two.simple_query("discard all").await.unwrap();
    assert_eq!(ask(&one, "select nextval('s')").await, "2");
    assert_eq!(ask(&two, "select 1").await, "1");
    let error = one.simple_query("select lastval()").await.unwrap_err();
    let hint = error.as_db_error().unwrap().hint().unwrap();
    assert!(hint.contains("mode = \"session\""), "{hint}");
}
