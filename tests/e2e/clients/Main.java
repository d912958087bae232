import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.stream.Stream;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.TodoApi;
import org.openapitools.client.model.ErrorResponse;
import org.openapitools.client.model.Task;
import org.openapitools.client.model.TodoCreateTask;
import org.openapitools.client.model.TodoRegister;
import org.openapitools.client.model.TodoUpdateTask;

/** The client of openapi-generator's java, on the HTTP client of the JDK. */
class Main {
  interface Request {
    Object send() throws ApiException;
  }

  static final ObjectMapper JSON = ApiClient.createDefaultObjectMapper();

  static List<Object> failure(Request request) throws Exception {
    try {
      request.send();
    } catch (ApiException error) {
      ErrorResponse body = JSON.readValue(error.getResponseBody(), ErrorResponse.class);
      Stream<Object> result = Stream.of(error.getCode(), body.getError());
      return Stream.concat(result, body.getDetails().stream().map(detail -> detail.getField())).toList();
    }
    throw new AssertionError("no failure");
  }

  public static void main(String[] arguments) throws Exception {
    ApiClient client = new ApiClient();
    client.updateBaseUri(System.getenv("API_URL"));
    var unauthorized = failure(() -> new TodoApi(client).listTasks(null, null, null));
    var account = new TodoRegister().email("alice@example.com").password("correct horse");
    String token = new TodoApi(client).signUp(account).getToken();
    client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + token));
    TodoApi api = new TodoApi(client);

    Task task = api.createTask(new TodoCreateTask().title("Buy milk"), null).getTask();
    UUID id = task.getId();
    var all = api.listTasks(null, null, null);
    var page = api.listTasks(2, 5, null);
    var changes = new TodoUpdateTask().description("2 l").completed(true);
    Task updated = api.updateTask(id, changes, null, null).getTask();
    var stale = failure(() -> api.updateTask(id, changes, "\"old\"", null));
    var invalid = failure(() -> api.createTask(new TodoCreateTask().title(" "), null));
    api.deleteTask(id, null, null);
    var gone = failure(() -> api.getTask(id, null));

    Object[] created = {task.getTitle(), task.getDescription(), task.getCompleted()};
    Object[] everything = {all.getTasks().stream().map(Task::getTitle).toList(), all.getPagination()};
    Map<String, Object> result = Map.of(
        "created", created,
        "all", everything,
        "page", List.of(page.getTasks(), page.getPagination().getPage(), page.getPagination().getPerPage()),
        "updated", List.of(updated.getTitle(), updated.getDescription(), updated.getCompleted()),
        "stale", stale,
        "invalid", invalid,
        "unauthorized", unauthorized,
        "gone", gone);
    System.out.println(JSON.writeValueAsString(result));
  }
}
