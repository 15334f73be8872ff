/*
 * tools_int - names that dump writes and load reads. Inside store/ only.
 */
#pragma once

#include "kademlia/item.h"

extern const char *const store_kind_names[ITEM_KIND__COUNT];
extern const char *const store_tier_names[3];
extern const char *const store_origin_names[3];
