// The executor's header has all of it.
#pragma once
#include "certiconv_simt.h"
