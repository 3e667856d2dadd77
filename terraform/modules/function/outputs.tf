output "name" {
  description = "Name of the function and of the Cloud Run service behind it."
  value       = google_cloudfunctions2_function.this.name
}

output "uri" {
  description = "Address of the function."
  value       = google_cloudfunctions2_function.this.service_config[0].uri
}

output "member" {
  description = "The identity that the function runs as, for IAM."
  value       = google_service_account.runs.member
}

output "push_email" {
  description = "The identity that delivers to the function."
  value       = google_service_account.push.email
}

output "push_id" {
  description = "The same, as a resource."
  value       = google_service_account.push.id
}
