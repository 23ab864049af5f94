output "person_policy_arn" {
  description = "Policy for people: attach it to their role, or name it in their permission set."
  value       = aws_iam_policy.person.arn
}

output "person_policy_json" {
  description = "The same as text, for a permission set of IAM Identity Center in another account."
  value       = aws_iam_policy.person.policy
}

output "document_name" {
  description = "Session document that people start sessions with."
  value       = aws_ssm_document.session.name
}

output "autoscaling_group_name" {
  description = "Auto Scaling group of the bastion."
  value       = aws_autoscaling_group.this.name
}

output "security_group_id" {
  description = "Security group of the bastion, for rules of databases that are kept elsewhere."
  value       = aws_security_group.bastion.id
}

output "role_arn" {
  description = "The bastion's role."
  value       = aws_iam_role.bastion.arn
}

output "config_parameter_name" {
  description = "Parameter that holds postern.toml."
  value       = aws_ssm_parameter.config.name
}

output "log_group_names" {
  description = "Log groups, by `audit` and `journal`."
  value       = { for name, group in aws_cloudwatch_log_group.this : name => group.name }
}

output "connect_commands" {
  description = "For each target, what people run."
  value = {
    for target in var.targets : target.name => join(" ", concat(
      ["postern", "connect", target.name, "--region", local.region, "--document", aws_ssm_document.session.name],
      var.connect_tag.key == "postern" && var.connect_tag.value == "bastion" ? [] : ["--tag", "${var.connect_tag.key}=${var.connect_tag.value}"],
      ["--user", target.users[0], "--database", target.databases[0]],
    ))
  }
}

output "grants_sql" {
  description = "For each target, what its owner runs once, with what the users may do besides."
  value = {
    for target in var.targets : target.name => join("\n", flatten([
      for user in target.users : ["CREATE USER \"${user}\";", "GRANT rds_iam TO \"${user}\";"]
    ]))
  }
}
