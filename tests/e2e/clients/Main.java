import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.LinkedHashMap;
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
import org.openapitools.client.model.TodoTaskList;
import org.openapitools.client.model.TodoUpdateTask;

/** The client of openapi-generator's java, on the HTTP client of the JDK. */
class Main {
  interface Request {
    Object send() throws ApiException;
  }

  static final ObjectMapper JSON = ApiClient.createDefaultObjectMapper();
  static String token = "x";

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

  static List<String> titles(TodoTaskList list) {
    return list.getTasks().stream().map(Task::getTitle).toList();
  }

  public static void main(String[] arguments) throws Exception {
    ApiClient client = new ApiClient();
    client.updateBaseUri(System.getenv("API_URL"));
    client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + token));
    TodoApi api = new TodoApi(client);

    Map<String, Object> result = new LinkedHashMap<>();
    result.put("unauthorized", failure(() -> api.listTasks(null, null, null)));
    String email = UUID.randomUUID() + "@example.com";
    var session = api.signUp(new TodoRegister().email(email).password("correct horse"));
    token = session.getToken();
    result.put("signedUp", session.getUser().getEmail().equals(email));

    var response = api.createTaskWithHttpInfo(new TodoCreateTask().title("Buy milk"), null);
    Task task = response.getData().getTask();
    String etag = response.getHeaders().get("etag").get(0);
    Object[] created = {task.getTitle(), task.getDescription(), task.getCompleted()};
    result.put("created", created);
    api.createTask(new TodoCreateTask().title("Read").description("Slowly"), null);
    TodoTaskList all = api.listTasks(null, null, null);
    Object[] everything = {titles(all), all.getPagination()};
    result.put("all", everything);
    TodoTaskList page = api.listTasks(2, 1, null);
    result.put("page", List.of(titles(page), page.getPagination().getPage(), page.getPagination().getPages()));
    UUID id = task.getId();
    var changes = new TodoUpdateTask().description("2 l").completed(true);
    Task updated = api.updateTask(id, changes, etag, null).getTask();
    result.put("stale", failure(() -> api.updateTask(id, changes, etag, null)));
    result.put("updated", List.of(updated.getTitle(), updated.getDescription(), updated.getCompleted()));
    result.put("newer", updated.getUpdatedAt().isAfter(task.getUpdatedAt()));
    result.put("invalid", failure(() -> api.createTask(new TodoCreateTask().title(" "), null)));
    result.put("deleted", api.deleteTaskWithHttpInfo(id, null, null).getStatusCode());
    result.put("gone", failure(() -> api.getTask(id, null)));
    System.out.println(JSON.writeValueAsString(result));
  }
}
