variable "project" {
  description = "The project of Phasegate and of the service."
  type        = string
}

variable "region" {
  description = "Where the service runs, such as europe-west3."
  type        = string
}

variable "pipeline_file" {
  description = "The pipeline file. The phase has the key guard in it."
  type        = string
}

variable "phase" {
  description = "The phase whose triggers the service receives."
  type        = string
}

variable "mode" {
  description = "parent: guard is the entry point of the service's image, and starts the service. sidecar: guard is a container of its own in front of it."
  type        = string
  default     = "parent"

  validation {
    condition     = contains(["parent", "sidecar"], var.mode)
    error_message = "mode: \"${var.mode}\" is not parent or sidecar."
  }
}

variable "image" {
  description = "Image of the service. With mode parent it also has guard and the pipeline file."
  type        = string
}

variable "guard_image" {
  description = "With mode sidecar: an image with guard as its entry point, and the pipeline file."
  type        = string
  default     = ""
}

variable "args" {
  description = "Arguments of the service's image. With mode sidecar the service listens on 127.0.0.1:8081, as gunicorn does with --bind=127.0.0.1:8081."
  type        = list(string)
  default     = []
}

variable "image_pipeline_file" {
  description = "Where the pipeline file is in the image that has guard."
  type        = string
  default     = "/pipeline.yaml"
}

variable "concurrency" {
  description = "How many deliveries an instance works at once."
  type        = number
  default     = 1
}

variable "max_instances" {
  description = "How many instances work at most."
  type        = number
  default     = 10
}

variable "database" {
  description = "The Firestore database of Phasegate's state."
  type        = string
  default     = "(default)"
}

variable "prefix" {
  description = "Prefix of the names of topics and collections, as in Phasegate's own deployment."
  type        = string
  default     = ""
}
