// Coroutines that nobody awaits. None may fail silently: an exception that leaves one is logged with its name.
// Control thread (or whichever executor is given).
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <string>

namespace penstock::scheduler {

namespace asio = boost::asio;

void in_background(const asio::any_io_executor& executor, std::string name, asio::awaitable<void> work);

}  // namespace penstock::scheduler
