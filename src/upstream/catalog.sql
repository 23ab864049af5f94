WITH own AS (
  SELECT p.oid, p.proname, p.provolatile, p.prokind, l.lanname, p.prosrc AS body, pg_catalog.octet_length(p.prosrc) < 60000 AS fits
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  WHERE p.pronamespace NOT IN ('pg_catalog'::pg_catalog.regnamespace, 'information_schema'::pg_catalog.regnamespace)
), rel AS (
  SELECT c.oid, c.relname FROM pg_catalog.pg_class c
  WHERE c.relnamespace NOT IN ('pg_catalog'::pg_catalog.regnamespace, 'information_schema'::pg_catalog.regnamespace, 'pg_toast'::pg_catalog.regnamespace)
    AND c.relkind IN ('r', 'v', 'm', 'p', 'f', 'c')
), typ AS (
  SELECT oid, typname FROM pg_catalog.pg_type
  WHERE typnamespace NOT IN ('pg_catalog'::pg_catalog.regnamespace, 'information_schema'::pg_catalog.regnamespace)
), part AS (
  -- What belongs to a relation and may run something, and the relation.
  SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass AS classid, oid AS objid, adrelid AS relid, adbin::pg_catalog.text AS expr FROM pg_catalog.pg_attrdef
  UNION ALL SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, oid, ev_class, pg_catalog.concat(ev_qual, ev_action) FROM pg_catalog.pg_rewrite
    WHERE ev_class IN (SELECT oid FROM rel)
  UNION ALL SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, oid, polrelid, pg_catalog.concat(polqual, polwithcheck) FROM pg_catalog.pg_policy
  UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid, conrelid, conbin::pg_catalog.text FROM pg_catalog.pg_constraint WHERE conrelid <> 0
  UNION ALL SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, oid, tgrelid, tgqual::pg_catalog.text FROM pg_catalog.pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, indexrelid, indrelid, pg_catalog.concat(indexprs, indpred) FROM pg_catalog.pg_index
    WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
  UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, partrelid, partrelid, partexprs::pg_catalog.text FROM pg_catalog.pg_partitioned_table
    WHERE partexprs IS NOT NULL
  UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, oid, stxrelid, pg_catalog.to_jsonb(s) OPERATOR(pg_catalog.->>) 'stxexprs' FROM pg_catalog.pg_statistic_ext s
), lastingly(kind, oid, symbol) AS (
  SELECT k, f.oid, f.prosrc
  FROM (VALUES ('SETTING', ARRAY['set_config']), ('SEED', ARRAY['setseed']), ('WRITE', ARRAY['nextval', 'setval']),
    ('READ', ARRAY['currval', 'lastval']),
    ('ADVISORY', ARRAY['pg_advisory_lock', 'pg_advisory_lock_shared', 'pg_try_advisory_lock', 'pg_try_advisory_lock_shared',
      'pg_advisory_unlock', 'pg_advisory_unlock_shared', 'pg_advisory_unlock_all']),
    ('LASTING', ARRAY['pg_backup_start', 'pg_backup_stop', 'pg_start_backup', 'pg_stop_backup', 'pg_replication_origin_session_setup', 'pg_replication_origin_session_reset',
      'pg_create_logical_replication_slot', 'pg_create_physical_replication_slot', 'pg_copy_logical_replication_slot',
      'pg_copy_physical_replication_slot']),
    ('DYNAMIC', ARRAY['query_to_xml', 'query_to_xmlschema', 'query_to_xml_and_xmlschema', 'table_to_xml', 'table_to_xmlschema',
      'table_to_xml_and_xmlschema', 'schema_to_xml', 'schema_to_xmlschema', 'schema_to_xml_and_xmlschema', 'database_to_xml',
      'database_to_xmlschema', 'database_to_xml_and_xmlschema', 'cursor_to_xml', 'cursor_to_xmlschema', 'ts_stat', 'ts_rewrite',
      'brin_summarize_new_values', 'brin_summarize_range', 'brin_desummarize_range', 'gin_clean_pending_list',
      'array_in', 'domain_in', 'multirange_in', 'range_in', 'record_in', 'pg_input_error_info', 'pg_input_is_valid'])) v(k, names)
  JOIN pg_catalog.pg_proc f ON f.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND f.proname = ANY (v.names)
), lasting(kind, re) AS (
  SELECT kind, pg_catalog.concat(':(funcid|opfuncid|aggfnoid|winfnoid) (', pg_catalog.string_agg(oid::pg_catalog.text, '|'), ') ')
  FROM lastingly GROUP BY kind
  UNION ALL SELECT 'SETTING', pg_catalog.concat(':relid ', 'pg_catalog.pg_settings'::pg_catalog.regclass::pg_catalog.oid::pg_catalog.text, ' ')
)
SELECT 'r', proname::pg_catalog.text, pg_catalog.concat(CASE WHEN prokind = 'a' THEN 'sql' WHEN fits THEN lanname ELSE '' END, '/', provolatile, '/',
  EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid = own.oid
    AND d.classid IN ('pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_cast'::pg_catalog.regclass,
      'pg_catalog.pg_opclass'::pg_catalog.regclass, 'pg_catalog.pg_amproc'::pg_catalog.regclass,
      'pg_catalog.pg_opfamily'::pg_catalog.regclass, 'pg_catalog.pg_conversion'::pg_catalog.regclass)), '/',
  CASE WHEN fits AND prokind <> 'a' AND lanname IN ('sql', 'plpgsql') THEN body END)
FROM own
UNION ALL
SELECT 'l', rel.relname::pg_catalog.text, own.proname::pg_catalog.text
FROM part JOIN rel ON rel.oid = part.relid
  JOIN pg_catalog.pg_depend d ON d.classid = part.classid AND d.objid = part.objid AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  JOIN own ON own.oid = d.refobjid
UNION ALL
SELECT 'l', rel.relname::pg_catalog.text, other.relname::pg_catalog.text
FROM part JOIN rel ON rel.oid = part.relid
  JOIN pg_catalog.pg_depend d ON d.classid = part.classid AND d.objid = part.objid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  JOIN rel other ON other.oid = d.refobjid AND other.oid <> rel.oid
WHERE part.classid <> 'pg_catalog.pg_class'::pg_catalog.regclass
UNION ALL
-- An aggregate runs its functions, and so does a routine with a body that was parsed (BEGIN ATOMIC), which is never printed:
-- that would lock its tables.
SELECT 'l', own.proname::pg_catalog.text, other.proname::pg_catalog.text
FROM own JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = own.oid
    AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  JOIN own other ON other.oid = d.refobjid
UNION ALL
SELECT 'l', own.proname::pg_catalog.text, rel.relname::pg_catalog.text
FROM own JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = own.oid
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  JOIN rel ON rel.oid = d.refobjid
UNION ALL
-- A type runs its functions and the checks of a domain; a relation or routine runs what its types do.
SELECT 'l', rel.relname::pg_catalog.text, typ.typname::pg_catalog.text
FROM rel JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = rel.oid
    AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
  JOIN typ ON typ.oid = d.refobjid
UNION ALL
SELECT 'l', rel.relname::pg_catalog.text, typ.typname::pg_catalog.text
FROM part JOIN rel ON rel.oid = part.relid
  JOIN pg_catalog.pg_depend d ON d.classid = part.classid AND d.objid = part.objid AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
  JOIN typ ON typ.oid = d.refobjid
UNION ALL
SELECT 'l', own.proname::pg_catalog.text, typ.typname::pg_catalog.text
FROM own JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = own.oid
    AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
  JOIN typ ON typ.oid = d.refobjid
UNION ALL
SELECT 'l', typ.typname::pg_catalog.text, other.typname::pg_catalog.text
FROM typ JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = typ.oid
    AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
  JOIN typ other ON other.oid = d.refobjid
UNION ALL
SELECT 'l', typ.typname::pg_catalog.text, own.proname::pg_catalog.text
FROM typ JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = typ.oid
    AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  JOIN own ON own.oid = d.refobjid
UNION ALL
SELECT 'l', typ.typname::pg_catalog.text, own.proname::pg_catalog.text
FROM pg_catalog.pg_constraint c JOIN typ ON typ.oid = c.contypid
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = c.oid
    AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  JOIN own ON own.oid = d.refobjid
UNION ALL
SELECT 'l', typ.typname::pg_catalog.text, other.typname::pg_catalog.text
FROM pg_catalog.pg_constraint c JOIN typ ON typ.oid = c.contypid
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = c.oid
    AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
  JOIN typ other ON other.oid = d.refobjid AND other.oid <> typ.oid
UNION ALL
-- The initial value of an aggregate is read as of this type.
SELECT 'l', own.proname::pg_catalog.text, typ.typname::pg_catalog.text
FROM own JOIN pg_catalog.pg_aggregate g ON g.aggfnoid = own.oid JOIN typ ON typ.oid IN (g.aggtranstype, g.aggmtranstype)
UNION ALL
SELECT 'm', rel.relname::pg_catalog.text, ''
FROM part JOIN rel ON rel.oid = part.relid JOIN lasting ON part.expr ~ lasting.re
WHERE part.classid IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass)
UNION ALL
SELECT 'm', coalesce(own.proname, typ.typname)::pg_catalog.text, ''
FROM part JOIN pg_catalog.pg_depend d ON d.classid = part.classid AND d.objid = part.objid
  LEFT JOIN own ON d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND own.oid = d.refobjid
  LEFT JOIN typ ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND typ.oid = d.refobjid
WHERE coalesce(own.oid, typ.oid) IS NOT NULL AND part.classid IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass)
UNION ALL
SELECT 'x', own.proname::pg_catalog.text, f.kind
FROM own JOIN pg_catalog.pg_aggregate g ON g.aggfnoid = own.oid
  JOIN lastingly f ON f.oid IN (g.aggtransfn, g.aggfinalfn, g.aggcombinefn, g.aggserialfn, g.aggdeserialfn, g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn)
UNION ALL
-- Another name for one of these.
SELECT 'x', own.proname::pg_catalog.text, f.kind FROM own JOIN lastingly f ON f.symbol = own.body WHERE own.lanname = 'internal'
UNION ALL
SELECT 'a', o.oprname::pg_catalog.text, f.kind FROM pg_catalog.pg_operator o JOIN lastingly f ON f.oid IN (o.oprcode, o.oprrest, o.oprjoin)
UNION ALL
SELECT 'a', '', f.kind FROM pg_catalog.pg_cast c JOIN lastingly f ON f.oid = c.castfunc
UNION ALL
-- What a routine sets while it runs is set for whatever it calls.
SELECT 'x', own.proname::pg_catalog.text, 'DECIDES'
FROM own JOIN pg_catalog.pg_proc p ON p.oid = own.oid
WHERE EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) c
  WHERE pg_catalog.lower(pg_catalog.split_part(c, '=', 1)) IN ('client_encoding', 'datestyle', 'intervalstyle', 'timezone', 'standard_conforming_strings',
    'array_nulls', 'backslash_quote', 'lc_monetary', 'timezone_abbreviations', 'transform_null_equals', 'xmloption'))
UNION ALL
SELECT 'x', own.proname::pg_catalog.text, 'SEED'
FROM own JOIN pg_catalog.pg_proc p ON p.oid = own.oid
WHERE EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) c WHERE pg_catalog.lower(pg_catalog.split_part(c, '=', 1)) = 'seed')
UNION ALL
-- An identity column draws from its sequence without an expression that says so.
SELECT 'x', rel.relname::pg_catalog.text, 'WRITE'
FROM rel WHERE EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = rel.oid AND a.attidentity <> '')
UNION ALL
-- Arrays, composites and multiranges run what their parts do.
SELECT 't', typ.typname::pg_catalog.text, ''
FROM typ JOIN pg_catalog.pg_type t ON t.oid = typ.oid WHERE t.typtype IN ('d', 'r') OR t.typtype = 'b' AND t.typcategory <> 'A'
UNION ALL
SELECT 'd', own.proname::pg_catalog.text, '' FROM pg_catalog.pg_event_trigger e JOIN own ON own.oid = e.evtfoid
UNION ALL
-- What is done to a table is done to its partitions, and deleting from one may cascade to those that refer to it.
SELECT 'l', rel.relname::pg_catalog.text, other.relname::pg_catalog.text
FROM pg_catalog.pg_inherits i JOIN rel ON rel.oid = i.inhparent JOIN rel other ON other.oid = i.inhrelid
UNION ALL
SELECT 'l', rel.relname::pg_catalog.text, other.relname::pg_catalog.text
FROM pg_catalog.pg_constraint c JOIN rel ON rel.oid = c.confrelid JOIN rel other ON other.oid = c.conrelid WHERE c.contype = 'f'
UNION ALL
SELECT 'x', rel.relname::pg_catalog.text, lasting.kind
FROM part JOIN rel ON rel.oid = part.relid JOIN lasting ON part.expr ~ lasting.re
UNION ALL
SELECT 'x', own.proname::pg_catalog.text, lasting.kind
FROM own JOIN pg_catalog.pg_proc p ON p.oid = own.oid JOIN lasting ON pg_catalog.concat(p.proargdefaults, p.prosqlbody) ~ lasting.re
UNION ALL
SELECT 'x', typ.typname::pg_catalog.text, lasting.kind
FROM pg_catalog.pg_constraint c JOIN typ ON typ.oid = c.contypid JOIN lasting ON c.conbin::pg_catalog.text ~ lasting.re
UNION ALL
SELECT 'x', typ.typname::pg_catalog.text, lasting.kind
FROM pg_catalog.pg_type t JOIN typ ON typ.oid = t.oid JOIN lasting ON t.typdefaultbin::pg_catalog.text ~ lasting.re
