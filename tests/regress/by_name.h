/*
 * Makes PostgreSQL's isolationtester know its sessions by name instead of by process id.
 *
 * It asks the server "is process P blocked by one of these?", with the process ids that came with each login. Behind a
 * pooler such a number says whom to cancel and isn't the id of a server process, of which a client may have several, one
 * after the other. But isolationtester also gives each session a name of its own (application_name), and that shows in
 * pg_stat_activity wherever the session's statement runs. So here PQbackendPID is a number in the order of logins, the
 * question is put with names, and the sender of a notification is looked up by the process that sent it.
 *
 * isolationtester.c is compiled with "-include by_name.h", unchanged, and runs so directly as well.
 */
#include "postgres_fe.h"

#include "libpq-fe.h"
#include "pqexpbuffer.h"

#define MAX_SESSIONS 100

static struct { PGconn *connection; char *name; } by_name[MAX_SESSIONS];
static int by_name_count;

/* The one value that the question has for an answer, or NULL. */
static inline char *by_name_ask(PGconn *connection, const char *question) {
    PGresult *result = PQexec(connection, question);
    char *name = NULL;
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
        name = strdup(PQgetvalue(result, 0, 0));
    PQclear(result);
    return name;
}

static inline int by_name_number(PGconn *connection) {
    char *name = by_name_ask(connection, "SELECT quote_literal(current_setting('application_name'))");
    if (name == NULL || by_name_count == MAX_SESSIONS) {
        fprintf(stderr, "a session has no name: %s", PQerrorMessage(connection));
        exit(1);
    }
    by_name[by_name_count].connection = connection;
    by_name[by_name_count].name = name;
    return ++by_name_count;
}

/* The only statement that isolationtester prepares is the question who is blocked; $1 is a session's number. */
static inline PGresult *by_name_prepare(PGconn *connection, const char *statement) {
    PQExpBufferData question;
    PGresult *result;
    initPQExpBuffer(&question);
    appendPQExpBufferStr(&question, "WITH session (number, name) AS (VALUES (0, '')");
    for (int i = 1; i < by_name_count; i++)
        appendPQExpBuffer(&question, ", (%d, %s)", i + 1, by_name[i].name);
    appendPQExpBufferStr(&question,
        "), backend AS (SELECT pid, number, state FROM pg_stat_activity JOIN session ON application_name = name) "
        "SELECT coalesce(bool_or(pg_catalog.pg_isolation_test_session_is_blocked(pid, ARRAY(SELECT pid FROM backend))), "
        "false) FROM backend WHERE number = $1::int AND state IN ('active', 'fastpath function call')");
    result = PQprepare(connection, statement, question.data, 0, NULL);
    termPQExpBuffer(&question);
    return result;
}

static inline PGnotify *by_name_notifies(PGconn *connection) {
    PGnotify *notify = PQnotifies(connection);
    char question[100], *name;
    if (notify == NULL)
        return NULL;
    snprintf(question, sizeof(question),
             "SELECT quote_literal(application_name) FROM pg_stat_activity WHERE pid = %d", notify->be_pid);
    name = by_name_ask(by_name[0].connection, question);
    for (int i = 1; name != NULL && i < by_name_count; i++)
        if (strcmp(name, by_name[i].name) == 0)
            notify->be_pid = i + 1;
    free(name);
    return notify;
}

#define PQbackendPID(connection) by_name_number(connection)
#define PQprepare(connection, statement, query, count, types) by_name_prepare(connection, statement)
#define PQnotifies(connection) by_name_notifies(connection)
