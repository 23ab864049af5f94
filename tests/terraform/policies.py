"""Somebody has the people's policy, somebody else the bastion's: what each can do, and what not.

The policies are those that Terraform makes of the inputs in deploy/terraform/tests/setting.tftest.hcl (a test there compares them with
expected/). They are decided upon as IAM's documentation says, by an evaluator that knows what they use, and stops at what it doesn't.
AWS itself isn't asked.
"""

import fnmatch
import json
import pathlib
import re

EXPECTED = pathlib.Path(__file__).parents[2] / "deploy/terraform/tests/expected"
A, R = "123456789012", "eu-west-1"
CHECKED = "ssm:SessionDocumentAccessCheck"


def read(name):
    return json.loads((EXPECTED / f"{name}.json").read_text(encoding="utf-8"))


def listed(value):
    return value if isinstance(value, list) else [value]


def filled(pattern, context):
    """With policy variables in place; None if one has no value."""
    names = re.findall(r"\$\{([^}]+)\}", pattern)
    if any(name not in context for name in names):
        return None
    return re.sub(r"\$\{([^}]+)\}", lambda found: context[found[1]], pattern)


def fits(pattern, text, context):
    pattern = filled(pattern, context)
    # IAM has * and ?, and no [].
    return pattern is not None and fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def holds(conditions, context):
    for operator, keys in conditions.items():
        for key, values in keys.items():
            values = [filled(value, context) for value in listed(values)]
            if operator == "BoolIfExists" and key not in context:
                continue
            if operator not in ("StringEquals", "BoolIfExists"):
                raise SystemExit(f"this knows nothing of the operator {operator}")
            if key not in context or context[key] not in values:
                return False
    return True


def deciding(policy, action, resource, context):
    """The statements that are about this request."""
    for statement in policy["Statement"]:
        if set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition"}:
            raise SystemExit(f"this knows not all of the statement {statement['Sid']}")
        if (
            any(fits(pattern, action, {}) for pattern in listed(statement["Action"]))
            and any(fits(pattern, resource, context) for pattern in listed(statement["Resource"]))
            and holds(statement.get("Condition", {}), context)
        ):
            yield statement


def may(policy, action, resource, **context):
    context = {key.replace("__", ":"): value for key, value in context.items()} | context.pop("more", {})
    found = list(deciding(policy, action, resource, context))
    return bool(found) and all(statement["Effect"] == "Allow" for statement in found)


def starts(policy, document=None, bastion=True, account=A, region=R):
    """StartSession: of the instance, and of the document. Of the default document, a shell, only if a statement that lets him onto the
    instance asks for that (Systems Manager User Guide, "Enforce a session document permission check")."""
    arn = f"arn:aws:ec2:{region}:{account}:instance/i-0123456789abcdef0"
    context = {"ssm:resourceTag/postern": "bastion" if bastion else "other"}
    allowing = list(deciding(policy, "ssm:StartSession", arn, context))
    if not may(policy, "ssm:StartSession", arn, more=context):
        return False
    is_checked = all(CHECKED in statement.get("Condition", {}).get("BoolIfExists", {}) for statement in allowing)
    if document is None:
        if not is_checked:
            return True
        document = "SSM-SessionManagerRunShell"
    owner = "" if document.startswith("AWS-") else A
    return may(policy, "ssm:StartSession", f"arn:aws:ssm:{R}:{owner}:document/{document}", more={CHECKED: "true"})


def expect(what, seen, expected=True):
    print(f"{'ok    ' if seen == expected else 'WRONG '} {what}: {'may' if seen else 'may not'}")
    wrong.extend([what] if seen != expected else [])


wrong = []
person, bastion, session = read("person"), read("bastion"), read("session")

# Somebody with the people's policy.
ME, OTHER = "AROAEXAMPLE:alice@example.com", "AROAEXAMPLE:bob@example.com"
TAG = "ssm:resourceTag/aws:ssmmessages:session-id"
MINE = f"arn:aws:ssm:{R}:{A}:session/alice@example.com-0123456789abcdef0"
THEIRS = f"arn:aws:ssm:{R}:{A}:session/bob@example.com-0123456789abcdef0"
LONGER = f"arn:aws:ssm:{R}:{A}:session/alice@example.com-too-0123456789abcdef0"
INSTANCE = f"arn:aws:ec2:{R}:{A}:instance/i-0123456789abcdef0"
USER = f"arn:aws:rds-db:{R}:{A}:dbuser:cluster-ABCDEFGHIJKL/app_ro"

expect("people start sessions with the document", starts(person, "postern-connect"))
expect("… a shell, no document named", starts(person), False)
for document in (
    "SSM-SessionManagerRunShell",
    "AWS-StartPortForwardingSession",
    "AWS-StartPortForwardingSessionToRemoteHost",
    "AWS-StartPortForwardingSessionToSocket",
    "AWS-StartSSHSession",
    "AWS-StartInteractiveCommand",
    "AWS-StartNonInteractiveCommand",
    "postern-connect-2",
    "postern",
):
    expect(f"… with {document}", starts(person, document), False)
expect("… on an instance that is no bastion", starts(person, "postern-connect", bastion=False), False)
expect("… in another account", starts(person, "postern-connect", account="210987654321"), False)
expect("… in another region", starts(person, "postern-connect", region="us-east-1"), False)
for action in ("ssm:TerminateSession", "ssm:ResumeSession"):
    expect(f"{action}, own session", may(person, action, MINE, more={"aws:userid": ME, TAG: ME}))
    expect("… another's", may(person, action, THEIRS, more={"aws:userid": ME, TAG: OTHER}), False)
    expect("… of a name that begins with his", may(person, action, LONGER, more={"aws:userid": ME, TAG: f"{ME}-too"}), False)
    expect("… of the same name and another role", may(person, action, MINE, more={"aws:userid": ME, TAG: "AROAOTHER" + ME[11:]}), False)
    expect("… without an owner", may(person, action, THEIRS, more={"aws:userid": ME}), False)
expect(
    "people open another's data channel",
    may(person, "ssmmessages:OpenDataChannel", f"arn:aws:ssm:{R}:{A}:session/{OTHER}-0123456789abcdef0", more={"aws:userid": ME}),
    False,
)
ADMIN = {"Statement": [*person["Statement"], {"Sid": "All", "Effect": "Allow", "Action": "*", "Resource": "*"}]}
for who, policy in (("people", person), ("people who may do all else", ADMIN)):
    ours = {"ssm:resourceTag/postern": "bastion", "aws:ResourceTag/postern": "bastion"}
    for action in ("ssm:SendCommand", "ssm:CreateAssociation"):
        expect(f"{who} run commands on the bastion by {action}", may(policy, action, INSTANCE, more=ours), False)
    expect(f"{who} bring a key", may(policy, "ec2-instance-connect:SendSSHPublicKey", INSTANCE, more=ours), False)
    expect(
        f"{who} come by the serial console", may(policy, "ec2-instance-connect:SendSerialConsoleSSHPublicKey", INSTANCE, more=ours), False
    )
    for statement in bastion["Statement"]:
        if statement["Action"] == "rds-db:connect":
            for arn in listed(statement["Resource"]):
                expect(f"{who} log in past the bastion, {arn}", may(policy, "rds-db:connect", arn), False)
for action in ("ssm:UpdateDocument", "ssm:CreateDocument", "ssm:UpdateDocumentDefaultVersion", "ssm:DeleteDocument", "ssm:GetParameter"):
    expect(f"people {action}", may(person, action, f"arn:aws:ssm:{R}:{A}:document/postern-connect"), False)
for action in ("ec2:CreateTags", "ec2:ModifyInstanceAttribute", "ec2:CreateLaunchTemplateVersion", "iam:PassRole", "sts:AssumeRole"):
    expect(f"people {action}", may(person, action, INSTANCE), False)
expect("people find the bastion", may(person, "ec2:DescribeInstances", "*", more={"aws:RequestedRegion": R}))
expect("… elsewhere", may(person, "ec2:DescribeInstances", "*", more={"aws:RequestedRegion": "us-east-1"}), False)

# The document.
expect("the document has sessionType Port", session["sessionType"] == "Port")
expect("its port is a number in its text", re.fullmatch(r"[0-9]+", session["properties"]["portNumber"]) is not None)
expect("it leads to a host", "host" in session["properties"], False)
expect("it forwards, and is no shell", session["properties"]["type"] == "LocalPortForwarding")
expect("callers choose anything but their own port", set(session["parameters"]) != {"localPortNumber"}, False)
pattern = re.compile(session["parameters"]["localPortNumber"]["allowedPattern"])
expect("… any port that there is", all(pattern.search(str(port)) for port in range(65536)))
for text in ("65536", "-1", "00", "5432 ", "", "5432;id", "{{ x }}", "٣"):
    expect(f"… {text!r}", pattern.search(text) is not None, False)

# Somebody with the bastion's role.
expect("the bastion logs in as its user", may(bastion, "rds-db:connect", USER))
expect("… as another", may(bastion, "rds-db:connect", USER.replace("app_ro", "owner")), False)
expect("… of another database", may(bastion, "rds-db:connect", USER.replace("ABCDEF", "ZYXWVU")), False)
expect("… in another region", may(bastion, "rds-db:connect", USER.replace(R, "us-east-1")), False)
for name, is_own in (("postern/postern.toml", True), ("postern/cloudwatch-agent.json", True), ("postern/other", False), ("secret", False)):
    expect(f"the bastion reads the parameter {name}", may(bastion, "ssm:GetParameter", f"arn:aws:ssm:{R}:{A}:parameter/{name}"), is_own)
for action in ("PutParameter", "SendCommand", "StartSession", "GetDocument", "CreateAssociation", "DescribeSessions", "TerminateSession"):
    expect(f"the bastion ssm:{action}", may(bastion, f"ssm:{action}", f"arn:aws:ssm:{R}:{A}:parameter/postern/postern.toml"), False)
LOG = f"arn:aws:logs:{R}:{A}:log-group:/postern/audit"
expect("the bastion writes to the audit log", may(bastion, "logs:PutLogEvents", f"{LOG}:log-stream:i-0123456789abcdef0"))
expect("… to another log", may(bastion, "logs:PutLogEvents", f"{LOG}-2:log-stream:x"), False)
for action in ("DeleteLogStream", "DeleteLogGroup", "PutRetentionPolicy", "GetLogEvents", "CreateLogGroup"):
    expect(f"… {action}", may(bastion, f"logs:{action}", LOG), False)
GROUP = f"arn:aws:autoscaling:{R}:{A}:autoScalingGroup:01234567-89ab-cdef-0123-456789abcdef:autoScalingGroupName/postern"
expect("the bastion says that it is ready", may(bastion, "autoscaling:CompleteLifecycleAction", GROUP))
expect("… of another group", may(bastion, "autoscaling:CompleteLifecycleAction", f"{GROUP}-2"), False)
for action in ("sts:AssumeRole", "iam:PassRole", "ec2:RunInstances", "ec2:CreateTags", "rds:ModifyDBInstance", "s3:PutObject", "kms:Decrypt"):
    expect(f"the bastion {action}", may(bastion, action, "*"), False)

# Neither has a wildcard but where it is written down why.
UNBOUND = {
    "ec2:DescribeInstances",
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
}
for policy in (person, bastion):
    for statement in policy["Statement"]:
        actions = set(listed(statement["Action"]))
        expect(f"{statement['Sid']} has a wildcard as an action", any("*" in action or "?" in action for action in actions), False)
        if "*" in listed(statement["Resource"]):
            expect(f"{statement['Sid']} is of everything", not actions <= UNBOUND, False)
        if statement["Effect"] == "Allow" and any(fits(action, "ssm:StartSession", {}) for action in actions):
            checked = statement.get("Condition", {}).get("BoolIfExists", {}).get(CHECKED) == "true"
            expect(f"{statement['Sid']} starts sessions without a check of the document", not checked, False)

# The module's security groups: nobody dials the bastion.
for file in sorted(EXPECTED.parents[1].glob("*.tf")):
    text = file.read_text(encoding="utf-8")
    expect(f"{file.name} has rules within a group", re.search(r"^\s*(ingress|egress)\s*(=|\{)", text, re.M) is not None, False)
    for name, body in re.findall(r'^resource "aws_vpc_security_group_ingress_rule" "(\w+)" \{\n(.*?)^\}', text, re.M | re.S):
        group = re.search(r"^  security_group_id\s+= (.*)$", body, re.M)[1]
        expect(f"by {name}, somebody dials the bastion", "aws_security_group.bastion" in group, False)

if wrong:
    raise SystemExit(f"{len(wrong)} wrong: {'; '.join(wrong)}")
