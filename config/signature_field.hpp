// The record of a webhook's `signature`: what each request must be signed with. One record for every place
// that takes posted events: a flow's webhook source and a job's webhook trigger. Pure, any thread.
#pragma once

#include "config/field.hpp"

namespace penstock::config {

// Checked values of it have scheme, secret or secrets (references) and, where the scheme leaves them open, header,
// encoding and prefix; tolerance where it signs a time.
const field& signature_field();

}  // namespace penstock::config
