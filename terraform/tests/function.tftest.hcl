# Invariants of one function, with a mocked provider.

mock_provider "google" {
  override_during = plan

  mock_resource "google_service_account" {
    defaults = {
      email  = "mocked@nba-test-project.iam.gserviceaccount.com"
      member = "serviceAccount:mocked@nba-test-project.iam.gserviceaccount.com"
    }
  }
}

variables {
  project       = "nba-test-project"
  region        = "us-central1"
  prefix        = ""
  name          = "transition"
  description   = "Records completions and hands complete periods over"
  archive       = "./tests/archives/transition-0123456789ab.zip"
  bucket        = "archives"
  build_agent   = "projects/nba-test-project/serviceAccounts/build@nba-test-project.iam.gserviceaccount.com"
  memory        = "256M"
  cpu           = "1"
  concurrency   = 80
  timeout       = 180
  max_instances = 5
  environment   = {}
}

run "runs_and_is_called_as_identities_of_its_own" {
  command = plan

  module {
    source = "./modules/function"
  }

  assert {
    condition     = google_service_account.runs.account_id == "pg-transition" && google_service_account.push.account_id == "pg-push-transition"
    error_message = "The function shares an identity."
  }

  assert {
    condition     = google_cloudfunctions2_function.this.service_config[0].service_account_email == google_service_account.runs.email
    error_message = "The function does not run as itself."
  }

  assert {
    condition     = google_cloud_run_v2_service_iam_member.push.role == "roles/run.invoker" && google_cloud_run_v2_service_iam_member.push.member == google_service_account.push.member
    error_message = "Somebody else than the delivering identity may call the function."
  }

  assert {
    condition     = google_cloudfunctions2_function.this.service_config[0].all_traffic_on_latest_revision && length(google_cloudfunctions2_function.this.event_trigger) == 0
    error_message = "Traffic may stay with an old revision, or an event trigger delivers."
  }

  assert {
    condition     = google_storage_bucket_object.archive.name == "transition-0123456789ab.zip" && google_cloudfunctions2_function.this.build_config[0].source[0].storage_source[0].object == google_storage_bucket_object.archive.name
    error_message = "The source is not named by its hash."
  }
}

run "an_archive_that_is_missing_is_named" {
  command = plan

  module {
    source = "./modules/function"
  }

  variables {
    archive = "./tests/archives/transition-fedcba987654.zip"
  }

  expect_failures = [google_storage_bucket_object.archive]
}

run "the_ack_deadline_is_the_real_limit" {
  command = plan

  module {
    source = "./modules/function"
  }

  variables {
    timeout = 600
  }

  expect_failures = [var.timeout]
}
