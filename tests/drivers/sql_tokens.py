"""What PostgreSQL's own scanner and parser make of psql scripts.

Usage: sql_tokens.py DIRECTORY

Every *.sql file is cut into the texts that psql would send, more or less: a text goes on while it ends within
a literal or a comment. Meta-commands on lines of their own and the data of COPY FROM STDIN are left out. The package pglast
holds PostgreSQL's scanner and parser (libpg_query).

Prints lines:
    file NAME
    text START END              a text, by bytes of the file
    token START END NAME        its tokens, by bytes of the file
    error MESSAGE               instead of tokens: PostgreSQL refuses the text
    statements COUNT EFFECT...  when it parses: how many statements, and effects that they have at least
"""

import pathlib
import re
import sys

from pglast import ast, enums, parse_sql
from pglast.parser import ParseError, scan
from pglast.visitors import Visitor

# Statements with no effect of their own beyond the transaction.
HARMLESS = (
    ast.CheckPointStmt, ast.ClosePortalStmt, ast.ClusterStmt, ast.DeleteStmt, ast.ExplainStmt, ast.FetchStmt,
    ast.LockStmt, ast.NotifyStmt, ast.ReindexStmt, ast.SelectStmt, ast.TransactionStmt, ast.TruncateStmt,
    ast.UpdateStmt, ast.VacuumStmt, ast.VariableShowStmt, ast.ConstraintsSetStmt, ast.AlterSystemStmt,
)
EFFECTS = {
    ast.CallStmt: 'CODE', ast.DoStmt: 'CODE', ast.DeallocateStmt: 'DEALLOCATE', ast.ExecuteStmt: 'PREPARED',
    ast.InsertStmt: 'SEQUENCE_WRITE', ast.ListenStmt: 'LISTEN', ast.LoadStmt: 'LASTING',
    ast.MergeStmt: 'SEQUENCE_WRITE', ast.PrepareStmt: 'PREPARED', ast.UnlistenStmt: 'ENDS',
}
FUNCTIONS = {
    'set_config': 'SETTING', 'setseed': 'SEED', 'nextval': 'SEQUENCE_WRITE', 'setval': 'SEQUENCE_WRITE',
    'currval': 'SEQUENCE_READ', 'lastval': 'SEQUENCE_READ', 'ts_stat': 'DYNAMIC', 'ts_rewrite': 'DYNAMIC',
    'pg_advisory_lock': 'ADVISORY', 'pg_try_advisory_lock': 'ADVISORY', 'pg_advisory_lock_shared': 'ADVISORY',
    'pg_try_advisory_lock_shared': 'ADVISORY', 'pg_advisory_unlock': 'ENDS', 'pg_advisory_unlock_all': 'ENDS',
    'pg_advisory_unlock_shared': 'ENDS', 'query_to_xml': 'DYNAMIC', 'table_to_xml': 'DYNAMIC',
    'schema_to_xml': 'DYNAMIC', 'cursor_to_xml': 'DYNAMIC', 'database_to_xml': 'DYNAMIC',
}


class Effects(Visitor):
    """Gathers the effects of a tree."""

    def __init__(self):
        self.found = set()

    def visit_IntoClause(self, ancestors, node):
        self.found.add('DDL')

    def visit_FuncCall(self, ancestors, node):
        name = node.funcname[-1].sval
        local = name == 'set_config' and len(node.args or ()) == 3 and isinstance(node.args[2], ast.A_Const) \
            and node.args[2].val.boolval
        if name in FUNCTIONS and not local:
            self.found.add(FUNCTIONS[name])

    def visit_RangeVar(self, ancestors, node):
        if node.relpersistence == 't' or (node.schemaname or '').startswith('pg_temp'):
            self.found.add('TEMPORARY')

    def visit_SetToDefault(self, ancestors, node):
        self.found.add('SEQUENCE_WRITE')

    def visit(self, ancestors, node):
        if not isinstance(node, ast.Node) or not type(node).__name__.endswith('Stmt') or isinstance(node, ast.RawStmt):
            return
        kind = type(node)
        if kind in EFFECTS:
            self.found.add(EFFECTS[kind])
        elif kind is ast.CopyStmt:
            if node.is_from:
                self.found.add('SEQUENCE_WRITE')
        elif kind is ast.DeclareCursorStmt:
            if node.options & 0x20:  # CURSOR_OPT_HOLD
                self.found.add('CURSOR')
        elif kind is ast.DiscardStmt:
            if node.target != enums.DiscardMode.DISCARD_PLANS:
                self.found.add('DISCARD')
        elif kind is ast.VariableSetStmt:
            of_transaction = node.name in ('TRANSACTION', 'TRANSACTION SNAPSHOT')
            inside = any(isinstance(a, (ast.AlterDatabaseSetStmt, ast.AlterFunctionStmt, ast.AlterRoleSetStmt,
                                    ast.AlterSystemStmt))
                         for a in nodes(ancestors))
            if not node.is_local and not of_transaction and not inside:
                self.found.add('SETTING')
            if (node.name or '').lower() == 'seed':
                self.found.add('SEED')
        elif kind not in HARMLESS:
            self.found.add('DDL')


def nodes(ancestors):
    while ancestors is not None:
        yield ancestors.node
        ancestors = ancestors.parent


def effects(statement):
    visitor = Effects()
    # What a routine's body does, it does when it's called.
    if isinstance(statement.stmt, (ast.CreateFunctionStmt, ast.RuleStmt)):
        return {'DDL'}
    visitor(statement)
    return visitor.found


def tokens(text):
    try:
        return [t for t in scan(text) if t.name not in ('SQL_COMMENT', 'C_COMMENT')], None
    except ParseError as error:
        return None, error.args[0].replace('\n', ' ')


def report(text, start):
    """Prints what is known of a text that begins at byte `start` of its file."""
    places = [start]
    for character in text:
        places.append(places[-1] + len(character.encode()))
    print('text', start, places[-1])
    found, error = tokens(text)
    if error:
        print('error', error)
        return
    for token in found:
        print('token', places[token.start], places[token.end + 1], token.name)
    try:
        statements = parse_sql(text)
    except (ParseError, RecursionError):
        return
    print('statements', len(statements), *sorted(set().union(*map(effects, statements))))


def texts(lines):
    """The texts of a script: lists of lines, with the number of their first line."""
    at = 0
    while at < len(lines):
        if re.match(r'\s*\\', lines[at]):
            at += 1
            continue
        end = at
        while end < len(lines):
            end += 1
            ends = end == len(lines) or lines[end - 1].rstrip().endswith(';') or re.match(r'\s*\\', lines[end]) \
                or re.search(r'\\g\w*\s*$', lines[end - 1])
            if not ends:
                continue
            _, error = tokens(''.join(lines[at:end]))
            if not error or not error.startswith('unterminated'):
                break
        else:
            end = at + 1
        yield at, lines[at:end]
        copies = re.search(r'^\s*copy\b.*\bfrom\s+stdin\b', ''.join(lines[at:end]), re.I | re.M | re.S)
        if copies and any(line.rstrip('\n') == '\\.' for line in lines[end:]):
            while lines[end].rstrip('\n') != '\\.':
                end += 1
            end += 1
        at = end


def main():
    for path in sorted(pathlib.Path(sys.argv[1]).glob('*.sql')):
        try:
            script = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        if '\0' in script:
            continue
        print('file', path.name)
        lines = re.findall(r'[^\n]*\n|[^\n]+', script)
        starts = [0]
        for line in lines:
            starts.append(starts[-1] + len(line.encode()))
        for number, part in texts(lines):
            report(''.join(part), starts[number])


main()
