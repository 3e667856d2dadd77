locals {
  slack = var.slack_channel == "" ? [] : ["slack"]

  # Critical alerts page a person; all others go to a chat room or a ticket queue. Neither list is
  # ever empty: the mail address is required, and replaces a list without channels.
  slack_channels = [for s in local.slack : google_monitoring_notification_channel.slack[s].id]
  channels = {
    critical = length(var.critical_channels) > 0 ? tolist(var.critical_channels) : [google_monitoring_notification_channel.email.id]
    other    = length(var.other_channels) + length(local.slack) > 0 ? concat(tolist(var.other_channels), local.slack_channels) : [google_monitoring_notification_channel.email.id]
  }
}

resource "google_monitoring_notification_channel" "email" {
  display_name = "${var.prefix}phasegate mail"
  type         = "email"
  user_labels  = local.labels

  labels = {
    email_address = var.email
  }

  depends_on = [google_project_service.required]
}

resource "google_monitoring_notification_channel" "slack" {
  for_each = toset(local.slack)

  display_name = "${var.prefix}phasegate Slack"
  type         = "slack"
  user_labels  = local.labels

  labels = {
    channel_name = var.slack_channel
  }

  # Write-only: the token is in no state and no plan.
  sensitive_labels {
    auth_token_wo         = var.slack_token
    auth_token_wo_version = var.slack_token_version
  }

  depends_on = [google_project_service.required]
}

# The same token for the functions. Their own notifications name the cycle, the reason and a
# suggested command.
resource "google_secret_manager_secret" "slack" {
  for_each = toset(local.slack)

  secret_id = "${var.prefix}phasegate-slack-token"

  replication {
    auto {}
  }

  depends_on = [google_project_service.required]
}

resource "google_secret_manager_secret_version" "slack" {
  for_each = toset(local.slack)

  secret                 = google_secret_manager_secret.slack[each.key].id
  secret_data_wo         = var.slack_token
  secret_data_wo_version = var.slack_token_version
}
